//! Whole-cluster simulation, process tests, SQL logic tests and the tidy test. Nothing depends on it.
