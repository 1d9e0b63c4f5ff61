//! The Postgres wire front end: authentication, messages to and from SQL sessions.
