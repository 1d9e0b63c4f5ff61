//! The command-line client rustydb-cli.
