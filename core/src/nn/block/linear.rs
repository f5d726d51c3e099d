//! A fully connected layer.

use std::ops::Range;

use super::{Backward, Forward};
use crate::nn::activation::Act;
use crate::nn::ops::linear;
use crate::nn::workspace::Buffer;
use crate::params::{Layout, Role};

/// Fully connected layer with bias and activation.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Range<usize>,
    bias: Range<usize>,
    pub inputs: usize,
    pub outputs: usize,
    act: Act,
}

impl Linear {
    /// Declares `{name}.weight` (outputs, inputs) and `{name}.bias`.
    pub fn new(
        layout: &mut Layout,
        name: &str,
        (inputs, outputs): (usize, usize),
        act: Act,
    ) -> Linear {
        Linear {
            weight: layout.add(
                format!("{name}.weight"),
                &[outputs, inputs],
                Role::LinearWeight,
            ),
            bias: layout.add(format!("{name}.bias"), &[outputs], Role::Bias),
            inputs,
            outputs,
            act,
        }
    }

    /// x (n, inputs) to y (n, outputs) and, for the backward pass, the value before the activation.
    pub fn forward(&self, pass: &mut Forward, x: &[f32]) -> (Buffer, Buffer) {
        let mut u = pass.workspace.take(x.len() / self.inputs * self.outputs);
        let (w, b) = (
            &pass.values[self.weight.clone()],
            &pass.values[self.bias.clone()],
        );
        linear::forward(x, w, b, &mut u);
        let mut y = pass.workspace.take(u.len());
        y.copy_from_slice(&u);
        linear::activate(&mut y, self.act);
        (y, u)
    }

    /// dx from dy, which is used up.
    pub fn backward(&self, pass: &mut Backward, x: &[f32], u: &[f32], mut dy: Buffer) -> Buffer {
        linear::activate_backward(&mut dy, u, self.act);
        let mut dx = pass.workspace.take(x.len());
        let w = &pass.values[self.weight.clone()];
        // The bias lies right behind its weight in the flat array.
        let (dw, db) = pass.grads[self.weight.start..self.bias.end].split_at_mut(self.weight.len());
        linear::backward(&dy, x, w, dw, db, Some(&mut dx));
        dx
    }
}
