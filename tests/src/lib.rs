//! knock-tests
