//! knock-client
