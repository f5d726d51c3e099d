//! Weights of other programs.
//!
//! 1. [`tensors`] opens a file and names its tensors (`legacy` those of before PyTorch 1.6); [`pickle`] reads
//!    PyTorch's descriptions without running them.
//! 2. [`recognize`](mod@recognize) says which network they are, by [`naming`].
//! 3. [`weights`] makes a weight file of ours of them, and writes ours under others' names.
//! 4. [`onnx`] writes a network's features as a graph that any runtime computes.

mod legacy;
pub mod naming;
pub mod onnx;
pub mod pickle;
pub mod recognize;
pub mod tensors;
pub mod weights;
