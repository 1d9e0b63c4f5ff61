//! gRPC clients and servers between nodes, TLS, deadlines, and the mapping of proto messages to domain types.
