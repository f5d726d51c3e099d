//! All topics that need no process of their own, in one program: each would compile the networks anew.

#[cfg(feature = "candle")]
mod candle_head;
mod cli;
mod closed_form;
mod data;
mod devices;
mod distill;
mod every_network;
mod foreign;
mod interrupted;
#[cfg(feature = "candle")]
mod microbatch;
mod moco;
mod refusals;
mod report;
mod resume;
mod session;
mod signed;
mod study;
mod teacher;
mod verdict;
mod weights;
