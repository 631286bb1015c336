//! Measurements of the firewall: a module for each kind, and what they share.

pub mod baselines;
pub mod packet;
pub mod plan;
pub mod report;
pub mod scale;
pub mod subject;
pub mod timing;
pub mod xdp_filter;
