//! Attention. A cube has a query (or, for the gradients of keys and values, a key) of a head.

use cubecl::prelude::*;

use super::rows::{UNITS, largest, total};

/// Sizes of (images, tokens, 3, heads, head).
#[derive(CubeType, CubeLaunch)]
pub struct Shape {
    pub heads: usize,
    pub head: usize,
}

/// Where the q, k or v of a token's head begins.
#[cube]
fn place(shape: &Shape, token: usize, which: usize, head: usize) -> usize {
    ((token * 3 + which) * shape.heads + head) * shape.head
}

/// The softmax of a query's similarities, into `p`.
#[cube]
fn weights(
    qkv: &Array<f32>,
    shape: &Shape,
    first: usize,
    query: usize,
    head: usize,
    p: &mut SharedMemory<f32>,
    shared: &mut SharedMemory<f32>,
    #[comptime] tokens: usize,
) {
    let q = place(shape, query, 0usize, head);
    let scale = 1.0f32 / f32::cast_from(shape.head).sqrt();
    let mut top = f32::min_value();
    let mut t = UNIT_POS as usize;
    while t < tokens {
        let k = place(shape, first + t, 1usize, head);
        let mut dot = 0.0f32;
        for d in 0..shape.head {
            dot = fma(qkv[q + d], qkv[k + d], dot);
        }
        p[t] = dot * scale;
        top = max(top, dot * scale);
        t += UNITS;
    }
    let top = largest(top, shared);
    let mut sum = 0.0f32;
    let mut t = UNIT_POS as usize;
    while t < tokens {
        let e = (p[t] - top).exp();
        p[t] = e;
        sum += e;
        t += UNITS;
    }
    let inverse = 1.0f32 / total(sum, shared);
    let mut t = UNIT_POS as usize;
    while t < tokens {
        p[t] *= inverse;
        t += UNITS;
    }
    sync_cube();
}

/// Cubes are (images * tokens) * heads.
#[cube(launch_unchecked)]
pub fn forward(
    qkv: &Array<f32>,
    out: &mut Array<f32>,
    shape: &Shape,
    cubes: usize,
    #[comptime] tokens: usize,
) {
    let mut p = SharedMemory::<f32>::new(tokens);
    let mut shared = SharedMemory::<f32>::new(UNITS);
    if CUBE_POS < cubes {
        let (query, head) = (CUBE_POS / shape.heads, CUBE_POS % shape.heads);
        let first = query / tokens * tokens;
        weights(qkv, shape, first, query, head, &mut p, &mut shared, tokens);
        let mut d = UNIT_POS as usize;
        while d < shape.head {
            let mut sum = 0.0f32;
            for t in 0..tokens {
                sum = fma(p[t], qkv[place(shape, first + t, 2usize, head) + d], sum);
            }
            out[CUBE_POS * shape.head + d] = sum;
            d += UNITS;
        }
    }
}

/// The gradient of q, and, for [`back_keys`], the weights and the similarities' gradients (images *
/// tokens, heads, tokens).
#[cube(launch_unchecked)]
pub fn back_queries(
    qkv: &Array<f32>,
    dy: &Array<f32>,
    dqkv: &mut Array<f32>,
    ps: &mut Array<f32>,
    ds: &mut Array<f32>,
    shape: &Shape,
    cubes: usize,
    #[comptime] tokens: usize,
) {
    let mut p = SharedMemory::<f32>::new(tokens);
    let mut g = SharedMemory::<f32>::new(tokens);
    let mut shared = SharedMemory::<f32>::new(UNITS);
    if CUBE_POS < cubes {
        let (query, head) = (CUBE_POS / shape.heads, CUBE_POS % shape.heads);
        let first = query / tokens * tokens;
        weights(qkv, shape, first, query, head, &mut p, &mut shared, tokens);
        let mut dot = 0.0f32;
        let mut t = UNIT_POS as usize;
        while t < tokens {
            let v = place(shape, first + t, 2usize, head);
            let mut dp = 0.0f32;
            for d in 0..shape.head {
                dp = fma(dy[CUBE_POS * shape.head + d], qkv[v + d], dp);
            }
            g[t] = dp;
            dot = fma(p[t], dp, dot);
            t += UNITS;
        }
        let dot = total(dot, &mut shared);
        let scale = 1.0f32 / f32::cast_from(shape.head).sqrt();
        let mut t = UNIT_POS as usize;
        while t < tokens {
            let dlogit = p[t] * (g[t] - dot) * scale;
            g[t] = dlogit;
            ps[CUBE_POS * tokens + t] = p[t];
            ds[CUBE_POS * tokens + t] = dlogit;
            t += UNITS;
        }
        sync_cube();
        let q = place(shape, query, 0usize, head);
        let mut d = UNIT_POS as usize;
        while d < shape.head {
            let mut sum = 0.0f32;
            for t in 0..tokens {
                sum = fma(g[t], qkv[place(shape, first + t, 1usize, head) + d], sum);
            }
            dqkv[q + d] = sum;
            d += UNITS;
        }
    }
}

/// The gradients of k and v.
#[cube(launch_unchecked)]
pub fn back_keys(
    qkv: &Array<f32>,
    dy: &Array<f32>,
    dqkv: &mut Array<f32>,
    ps: &Array<f32>,
    ds: &Array<f32>,
    shape: &Shape,
    cubes: usize,
    #[comptime] tokens: usize,
) {
    if CUBE_POS < cubes {
        let (key, head) = (CUBE_POS / shape.heads, CUBE_POS % shape.heads);
        let (first, place_of) = (key / tokens * tokens, key % tokens);
        let mut d = UNIT_POS as usize;
        while d < shape.head {
            let mut dk = 0.0f32;
            let mut dv = 0.0f32;
            for t in 0..tokens {
                let row = (first + t) * shape.heads + head;
                let q = qkv[place(shape, first + t, 0usize, head) + d];
                dk = fma(ds[row * tokens + place_of], q, dk);
                dv = fma(ps[row * tokens + place_of], dy[row * shape.head + d], dv);
            }
            dqkv[place(shape, key, 1usize, head) + d] = dk;
            dqkv[place(shape, key, 2usize, head) + d] = dv;
            d += UNITS;
        }
    }
}
