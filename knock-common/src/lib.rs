#![no_std]
#![forbid(unsafe_code)]
//! knock-common
