//! Configuration, wiring of a node, admin gRPC and HTTP; the binary rustydb.
