//! The waist: a transactional, multi-version, ordered key-value store with a change feed.
