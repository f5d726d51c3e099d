//! Fully connected layer with activation: y = act(x w' + b).

use super::channelwise::{apply, multiply_derivative};
use crate::activation::{Act, with_act};
use crate::gemm::{MatMul, Matrix, gemm_columns};

/// u (n, out) = x (n, in) w' + b with w (out, in): the value before the activation.
pub fn forward(x: &[f32], w: &[f32], bias: &[f32], u: &mut [f32]) {
    let cout = bias.len();
    let cin = w.len() / cout;
    for row in u.chunks_exact_mut(cout) {
        row.copy_from_slice(bias);
    }
    let rows = u.len() / cout;
    gemm_columns(
        MatMul {
            m: rows,
            n: cout,
            k: cin,
        },
        Matrix::rows(x, cin),
        Matrix::rows(w, cin).transposed(),
        u,
        true,
    );
}

/// y = act(u).
pub fn activate(u: &[f32], act: Act, y: &mut [f32]) {
    with_act!(act, A => apply::<A>(u, y));
}

/// du = dy * act'(u), in place of dy.
pub fn activate_backward(dy: &mut [f32], u: &[f32], act: Act) {
    with_act!(act, A => multiply_derivative::<A>(u, dy));
}

/// Adds the gradients of w and b, and writes x's to `dx` if it is wanted.
pub fn backward(
    du: &[f32],
    x: &[f32],
    w: &[f32],
    dw: &mut [f32],
    dbias: &mut [f32],
    dx: Option<&mut [f32]>,
) {
    let cout = dbias.len();
    let cin = w.len() / cout;
    let rows = du.len() / cout;
    for row in du.chunks_exact(cout) {
        for (b, g) in dbias.iter_mut().zip(row) {
            *b += g;
        }
    }
    let du = Matrix::rows(du, cout);
    gemm_columns(
        MatMul {
            m: cout,
            n: cin,
            k: rows,
        },
        du.transposed(),
        Matrix::rows(x, cin),
        dw,
        true,
    );
    if let Some(dx) = dx {
        gemm_columns(
            MatMul {
                m: rows,
                n: cin,
                k: cout,
            },
            du,
            Matrix::rows(w, cin),
            dx,
            false,
        );
    }
}
