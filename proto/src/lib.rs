//! Code generated from proto/rustydb/v1/*.proto, without a system protoc.
