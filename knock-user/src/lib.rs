//! knock-user
