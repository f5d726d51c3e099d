//! Losses: logits come from a product, and a cube has a query.

use cubecl::prelude::*;

use super::rows::{largest, total};

/// Units of a cube: rows are as long as the queue.
pub const UNITS: usize = 256;
/// Numbers of a row that a unit reads together.
const TOGETHER: usize = 4;

/// A similarity that counts nowhere.
pub const NOWHERE: f32 = -1e30;

/// The dot products of two tensors' rows.
#[cube(launch_unchecked)]
pub fn dots(x: &Array<f32>, y: &Array<f32>, y_at: usize, out: &mut Array<f32>, dim: usize) {
    let mut shared = SharedMemory::<f32>::new(UNITS);
    let row = CUBE_POS;
    if row < out.len() {
        let mut dot = 0.0f32;
        let mut c = UNIT_POS as usize;
        while c < dim {
            dot = fma(x[row * dim + c], y[y_at + row * dim + c], dot);
            c += UNITS;
        }
        let dot = total(dot, &mut shared);
        if UNIT_POS == 0 {
            out[row] = dot;
        }
    }
}

/// Leaves out what the queue shows of a query's own photo.
#[cube(launch_unchecked)]
pub fn mask_own(similarities: &mut Array<f32>, own: &Array<u32>, queue: &Array<u32>, none: u32) {
    let i = ABSOLUTE_POS;
    if i < similarities.len() {
        let (query, row) = (i / queue.len(), i % queue.len());
        if own[query] == queue[row] && own[query] != none {
            similarities[i] = NOWHERE;
        }
    }
}

/// Rows of a dataset, zeros for a photo that it does not have; and which of them are known.
#[cube(launch_unchecked)]
pub fn initial_rows(
    initial: &Array<f32>,
    photos: &Array<u32>,
    out: &mut Array<f32>,
    known: &mut Array<u32>,
    size: u32,
    dim: usize,
) {
    let mut shared = SharedMemory::<f32>::new(UNITS);
    let row = CUBE_POS;
    if row < photos.len() {
        let mut any = 0.0f32;
        let mut c = UNIT_POS as usize;
        while c < dim {
            let mut x = 0.0f32;
            if photos[row] < size {
                x = initial[photos[row] as usize * dim + c];
            }
            if x != 0.0f32 {
                any = 1.0f32;
            }
            out[row * dim + c] = x;
            c += UNITS;
        }
        let any = largest(any, &mut shared);
        if UNIT_POS == 0 {
            known[row] = u32::cast_from(any);
        }
    }
}

/// Where a dataset says nothing of a pair, or there is no pair.
#[cube(launch_unchecked)]
pub fn mask_unknown(
    similarities: &mut Array<f32>,
    own: &Array<u32>,
    queue: &Array<u32>,
    own_known: &Array<u32>,
    queue_known: &Array<u32>,
) {
    let i = ABSOLUTE_POS;
    if i < similarities.len() {
        let (query, row) = (i / queue.len(), i % queue.len());
        if own_known[query] == 0 || queue_known[row] == 0 || own[query] == queue[row] {
            similarities[i] = NOWHERE;
        }
    }
}

/// Similarities become the softmax at temperature `t`, times `weight`; the positive's part is the rest.
/// Where nothing counts, the positive has all.
#[cube(launch_unchecked)]
pub fn near_targets(
    similarities: &mut Array<f32>,
    positives: &mut Array<f32>,
    size: usize,
    t: f32,
    weight: f32,
) {
    let mut shared = SharedMemory::<f32>::new(UNITS);
    let row = CUBE_POS;
    if row < positives.len() {
        let (top, sum) = log_sum(similarities, row * size, size, NOWHERE, t, &mut shared);
        let mut own = 1.0f32;
        let mut factor = 0.0f32;
        if top > 0.5f32 * NOWHERE {
            own = 1.0f32 - weight;
            factor = weight / sum;
        }
        let mut j = UNIT_POS as usize;
        while j < size {
            let at = row * size + j;
            similarities[at] = ((similarities[at] - top) / t).exp() * factor;
            j += UNITS;
        }
        if UNIT_POS == 0 {
            positives[row] = own;
        }
    }
}

/// Even parts of `weight` for the `count` largest similarities; of equal ones the first.
#[cube(launch_unchecked)]
pub fn nearest_targets(
    similarities: &Array<f32>,
    targets: &mut Array<f32>,
    positives: &mut Array<f32>,
    size: usize,
    count: usize,
    weight: f32,
) {
    let mut shared = SharedMemory::<f32>::new(UNITS);
    let row = CUBE_POS;
    if row < positives.len() {
        let mut counting = 0.0f32;
        let mut j = UNIT_POS as usize;
        while j < size {
            targets[row * size + j] = 0.0f32;
            if similarities[row * size + j] > 0.5f32 * NOWHERE {
                counting += 1.0f32;
            }
            j += UNITS;
        }
        let count = min(count, usize::cast_from(total(counting, &mut shared)));
        let part = weight / f32::cast_from(max(count, 1usize));
        for _ in 0..count {
            let mut top = f32::min_value();
            let mut j = UNIT_POS as usize;
            while j < size {
                let at = row * size + j;
                if targets[at] == 0.0f32 {
                    top = max(top, similarities[at]);
                }
                j += UNITS;
            }
            let top = largest(top, &mut shared);
            let mut first = 0.0f32 - f32::cast_from(size);
            let mut j = UNIT_POS as usize;
            while j < size {
                let at = row * size + j;
                if targets[at] == 0.0f32 && similarities[at] == top {
                    first = max(first, 0.0f32 - f32::cast_from(j));
                }
                j += UNITS;
            }
            let first = usize::cast_from(0.0f32 - largest(first, &mut shared));
            if UNIT_POS as usize == first % UNITS && first < size {
                targets[row * size + first] = part;
            }
            sync_cube();
        }
        if UNIT_POS == 0 {
            let mut own = 1.0f32;
            if count > 0 {
                own = 1.0f32 - weight;
            }
            positives[row] = own;
        }
    }
}

/// A teacher's similarities become its distribution.
#[cube(launch_unchecked)]
pub fn teacher_targets(
    similarities: &mut Array<f32>,
    positives: &mut Array<f32>,
    size: usize,
    t: f32,
) {
    let mut shared = SharedMemory::<f32>::new(UNITS);
    let row = CUBE_POS;
    if row < positives.len() {
        let own = positives[row];
        let (top, sum) = log_sum(similarities, row * size, size, own, t, &mut shared);
        let mut j = UNIT_POS as usize;
        while j < size {
            let at = row * size + j;
            similarities[at] = ((similarities[at] - top) / t).exp() / sum;
            j += UNITS;
        }
        if UNIT_POS == 0 {
            positives[row] = ((own - top) / t).exp() / sum;
        }
    }
}

/// Cross-entropy of the softmax at temperature `t` to the targets (without any: to the positive).
/// Similarities become their gradient; `found` is (queries, 3): loss, similarity of the positive, and whether
/// that was nearer than every negative.
#[cube(launch_unchecked)]
pub fn soft_cross_entropy(
    similarities: &mut Array<f32>,
    positives: &mut Array<f32>,
    targets: &ComptimeOption<Array<f32>>,
    positive_targets: &ComptimeOption<Array<f32>>,
    found: &mut Array<f32>,
    size: usize,
    t: f32,
) {
    let mut shared = SharedMemory::<f32>::new(UNITS);
    let row = CUBE_POS;
    if row < positives.len() {
        let own = positives[row];
        let (top, sum) = log_sum(similarities, row * size, size, own, t, &mut shared);
        let mut expected = 0.0f32;
        let mut nearest = f32::new(NOWHERE);
        let mut j = UNIT_POS as usize;
        while j < size {
            let at = row * size + j;
            let s = similarities[at];
            nearest = max(nearest, s);
            let mut dlogit = ((s - top) / t).exp() / sum;
            #[comptime]
            if let ComptimeOption::Some(targets) = targets {
                let target = targets[at];
                if target > 0.0f32 {
                    expected = fma(target, s, expected);
                }
                dlogit -= target;
            }
            similarities[at] = dlogit;
            j += UNITS;
        }
        let nearest = largest(nearest, &mut shared);
        let expected = total(expected, &mut shared);
        if UNIT_POS == 0 {
            let mut target = 1.0f32;
            #[comptime]
            if let ComptimeOption::Some(targets) = positive_targets {
                target = targets[row];
            }
            found[row * 3] = sum.ln() + (top - expected - target * own) / t;
            found[row * 3 + 1] = own;
            let mut nearer = 0.0f32;
            if own > nearest {
                nearer = 1.0f32;
            }
            found[row * 3 + 2] = nearer;
            positives[row] = ((own - top) / t).exp() / sum - target;
        }
    }
}

/// weight * |x - y|^2 = weight * (2 - 2 x.y) of unit rows, and `scale` * y, its gradient: added to what a loss has
/// found, or, `alone`, in its place, with the similarity of the two.
#[cube(launch_unchecked)]
pub fn regression(
    x: &Array<f32>,
    y: &Array<f32>,
    y_at: usize,
    grad: &mut Array<f32>,
    found: &mut Array<f32>,
    dim: usize,
    weight: f32,
    scale: f32,
    #[comptime] alone: bool,
) {
    let mut shared = SharedMemory::<f32>::new(UNITS);
    let row = CUBE_POS;
    if row < found.len() / 3 {
        let mut dot = 0.0f32;
        let mut c = UNIT_POS as usize;
        while c < dim {
            let at = row * dim + c;
            let to = y[y_at + at];
            dot = fma(x[at], to, dot);
            if comptime!(alone) {
                grad[at] = scale * to;
            } else {
                grad[at] = fma(scale, to, grad[at]);
            }
            c += UNITS;
        }
        let dot = total(dot, &mut shared);
        if UNIT_POS == 0 {
            let loss = weight * (2.0f32 - 2.0f32 * dot);
            if comptime!(alone) {
                found[row * 3] = loss;
                found[row * 3 + 1] = dot;
                found[row * 3 + 2] = 0.0f32;
            } else {
                found[row * 3] += loss;
            }
        }
    }
}

/// The largest x, and the sum of exp((x - largest) / t), of a row and one more: in one pass, in which what was
/// summed shrinks whenever something larger is met (Milakov and Gimelshein 2018).
#[cube]
fn log_sum(
    x: &Array<f32>,
    at: usize,
    size: usize,
    own: f32,
    t: f32,
    shared: &mut SharedMemory<f32>,
) -> (f32, f32) {
    let mut top = own;
    let mut sum = 0.0f32;
    if UNIT_POS == 0 {
        sum = 1.0f32;
    }
    let mut j = UNIT_POS as usize;
    while j < size {
        let mut some = Array::<f32>::new(TOGETHER);
        let mut most = top;
        #[unroll]
        for i in 0..TOGETHER {
            some[i] = x[at + min(j + i * UNITS, size - 1)];
            most = max(most, some[i]);
        }
        sum *= ((top - most) / t).exp();
        #[unroll]
        for i in 0..TOGETHER {
            let part = ((some[i] - most) / t).exp();
            sum += select(j + i * UNITS < size, part, 0.0f32);
        }
        top = most;
        j += comptime!(UNITS * TOGETHER);
    }
    let most = largest(top, shared);
    let sum = sum * ((top - most) / t).exp();
    (most, total(sum, shared))
}

/// d loss / d q = sum_j dlogit_j row_j, scaled: the sum of the pieces, and the positive's part.
#[cube(launch_unchecked)]
pub fn gradient(
    parts: &Array<f32>,
    dlogits: &Array<f32>,
    positives: &Array<f32>,
    positives_at: usize,
    out: &mut Array<f32>,
    dim: usize,
    pieces: usize,
    scale: f32,
) {
    let i = ABSOLUTE_POS;
    if i < out.len() {
        let mut sum = dlogits[i / dim] * positives[positives_at + i];
        for piece in 0..pieces {
            sum += parts[piece * out.len() + i];
        }
        out[i] = sum * scale;
    }
}
