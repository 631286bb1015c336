//! Measurements of knock: a module for each section, and shared helpers.

pub mod baselines;
pub mod doors;
pub mod drop_cost;
pub mod flood;
pub mod fwknop;
pub mod generator;
pub mod growth;
pub mod knockd;
pub mod link;
pub mod machine;
pub mod open;
pub mod packet;
pub mod plan;
pub mod plots;
pub mod receiver;
pub mod report;
pub mod scale;
pub mod spa;
pub mod stream;
pub mod subject;
pub mod survive;
pub mod timing;
pub mod usage;
pub mod user;
pub mod xdp_filter;
