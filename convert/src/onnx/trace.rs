//! A backend that computes nothing: every operation becomes nodes of a graph. Only what looking at
//! images on running statistics needs is known to it.
//!
//! Images are (batch, channels, height, width) here, as ONNX has them; tokens (batch, tokens, dim).

use super::INPUT;
use super::graph::{Graph, float, int, ints};
use seedling_core::Result;
use seedling_core::layout::Layout;
use seedling_core::nn::activation::Act;
use seedling_core::nn::backend::{
    Backend, Conv, ForwardOps, FusedInput, Host, Output, Param, Read, Rows, Statistics,
};
use seedling_core::nn::cpu::tokens;
use seedling_core::nn::layer::{
    BatchNorm, Gate, Heads, LayerNorm, Linear, Positions, SqueezeExcite,
};
use seedling_core::nn::window::Window;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Writes down what it is asked for.
#[derive(Clone, Debug)]
pub struct Tracer {
    graph: Arc<Mutex<Graph>>,
    /// Names and shapes of parameters and of running statistics, by where they begin.
    values: Arc<HashMap<usize, (String, Vec<usize>)>>,
    buffers: Arc<HashMap<usize, (String, Vec<usize>)>>,
}

/// A result's name.
type Name = String;

/// A batch norm's constants, or none.
#[derive(Clone, Debug)]
pub struct Norm(Option<([Name; 4], f32)>);

impl Tracer {
    /// Of a network of such tensors.
    pub fn new(layout: &Layout) -> Tracer {
        let of = |buffers: bool| {
            let entries = layout.entries().iter();
            let entries = entries.filter(|entry| entry.role.is_buffer() == buffers);
            let named =
                entries.map(|entry| (entry.range.start, (entry.name.clone(), entry.shape.clone())));
            Arc::new(named.collect())
        };
        Tracer {
            graph: Arc::default(),
            values: of(false),
            buffers: of(true),
        }
    }

    /// What was written down.
    pub fn finish(&self) -> Graph {
        std::mem::take(&mut self.graph())
    }

    fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A parameter as a constant, in its own shape or another of as many numbers.
    fn constant(
        &self,
        all: &HashMap<usize, (String, Vec<usize>)>,
        numbers: &[f32],
        range: &Range<usize>,
    ) -> Name {
        let fallback = (format!("numbers_{}", range.start), vec![range.len()]);
        let (name, shape) = all.get(&range.start).unwrap_or(&fallback);
        let numbers = numbers.get(range.clone()).unwrap_or_default();
        self.graph().constant(name, shape, numbers)
    }

    fn parameter(&self, values: &[f32], range: &Range<usize>) -> Name {
        self.constant(&self.values, values, range)
    }

    /// A layer's weight (out, in), as what stands on the right of a product.
    fn transposed(&self, values: &[f32], layer: &Linear) -> Name {
        let name = match self.values.get(&layer.weight.start) {
            Some((name, _)) => format!("{name}.transposed"),
            None => format!("numbers_{}.transposed", layer.weight.start),
        };
        let w = values.get(layer.weight.clone()).unwrap_or_default();
        let turned: Vec<f32> = (0..layer.inputs)
            .flat_map(|i| w.iter().skip(i).step_by(layer.inputs).copied())
            .collect();
        let shape = [layer.inputs, layer.outputs];
        self.graph().constant(&name, &shape, &turned)
    }

    fn node(&self, operation: &str, inputs: &[&str]) -> Name {
        self.graph().node(operation, inputs, &[])
    }

    fn scalar(&self, name: &str, value: f32) -> Name {
        self.graph().constant(name, &[], &[value])
    }

    fn activate(&self, x: &str, act: Act) -> Name {
        match act {
            Act::Identity => x.to_string(),
            Act::Relu => self.node("Relu", &[x]),
            Act::Relu6 => {
                let (low, high) = (self.scalar("zero", 0.0), self.scalar("six", 6.0));
                self.node("Clip", &[x, &low, &high])
            }
            Act::HardSwish => self.node("HardSwish", &[x]),
            Act::Silu => {
                let gate = self.node("Sigmoid", &[x]);
                self.node("Mul", &[x, &gate])
            }
            Act::Gelu => {
                let root = self.scalar("inverse_root_two", std::f32::consts::FRAC_1_SQRT_2);
                let (one, half) = (self.scalar("one", 1.0), self.scalar("half", 0.5));
                let scaled = self.node("Mul", &[x, &root]);
                let erf = self.node("Erf", &[&scaled]);
                let twice = self.node("Add", &[&erf, &one]);
                let halved = self.node("Mul", &[x, &half]);
                self.node("Mul", &[&halved, &twice])
            }
        }
    }

    /// `x` as it is read.
    fn read(&self, x: &FusedInput<Self>) -> Name {
        let mut name = x.z.clone();
        if let Some((norm, act)) = x.norm {
            if let Some(([scale, bias, mean, var], eps)) = &norm.0 {
                name = self.graph().node(
                    "BatchNormalization",
                    &[&name, scale, bias, mean, var],
                    &[float("epsilon", *eps)],
                );
            }
            name = self.activate(&name, act);
        }
        match x.gate {
            Some(gate) => self.node("Mul", &[&name, gate]),
            None => name,
        }
    }

    fn convolve(&self, x: &str, window: &Window, w: &str, groups: usize) -> Name {
        self.graph().node(
            "Conv",
            &[x, w],
            &[
                ints("kernel_shape", &[window.kernel; 2]),
                ints("strides", &[window.stride; 2]),
                ints("pads", &pads(window)),
                int("group", groups as i64),
            ],
        )
    }

    /// With every attribute said: not every reader has the format's defaults.
    fn conv_1x1(&self, inputs: &[&str]) -> Name {
        let sizes = [
            ints("kernel_shape", &[1, 1]),
            ints("strides", &[1, 1]),
            ints("pads", &[0; 4]),
        ];
        self.graph().node("Conv", inputs, &sizes)
    }

    fn norm_rows(&self, x: &str, layer: &LayerNorm, values: &[f32]) -> Name {
        let scale = self.parameter(values, &layer.weight);
        let bias = self.parameter(values, &layer.bias);
        self.graph().node(
            "LayerNormalization",
            &[x, &scale, &bias],
            &[int("axis", -1), float("epsilon", layer.eps)],
        )
    }

    fn reshape(&self, x: &str, shape: &[i64]) -> Name {
        let shape = self.graph().whole(&[shape.len()], shape);
        self.node("Reshape", &[x, &shape])
    }

    fn transpose(&self, x: &str, order: &[usize]) -> Name {
        self.graph().node("Transpose", &[x], &[ints("perm", order)])
    }
}

/// Zeros before and behind, by rows and columns.
fn pads(window: &Window) -> [usize; 4] {
    let behind = |out: usize, size: usize, before: usize| {
        ((out - 1) * window.stride + window.kernel).saturating_sub(size + before)
    };
    [
        window.pad_top,
        window.pad_left,
        behind(window.out_height, window.height, window.pad_top),
        behind(window.out_width, window.width, window.pad_left),
    ]
}

impl Backend for Tracer {
    type Buf = Name;
    type Flat = Vec<f32>;

    fn upload(&self, _: usize, _: impl FnOnce(&mut [f32])) -> Result<Name> {
        Ok(INPUT.into())
    }

    fn download(&self, buf: &Name) -> Result<Vec<f32>> {
        self.graph().result.clone_from(buf);
        Ok(Vec::new())
    }

    fn flat(&self, numbers: Vec<f32>) -> Result<Vec<f32>> {
        Ok(numbers)
    }

    fn host<'a>(&self, flat: &'a Vec<f32>) -> Result<Host<'a>> {
        Ok(Host::Borrowed(flat))
    }

    fn edit(&self, flat: &mut Vec<f32>, change: impl FnOnce(&mut [f32])) -> Result<()> {
        change(flat);
        Ok(())
    }

    fn release(&self) {}
}

impl ForwardOps for Tracer {
    type Moments = ();
    type Norm = Norm;
    /// (batch, channels, 1, 1)
    type PerImage = Name;
    type Squeezed = ();
    type Argmax = ();
    type RowStats = ();
    type L2NormCache = ();

    fn conv(
        &self,
        conv: Conv,
        x: &FusedInput<Self>,
        w: Param<Self>,
        _: usize,
    ) -> Result<Output<Self>> {
        let (x, w) = (self.read(x), self.parameter(w.values, w.range));
        let z = match conv {
            Conv::Pointwise => self.conv_1x1(&[&x, &w]),
            Conv::Dense(window) => self.convolve(&x, &window, &w, 1),
            Conv::Depthwise(window) => self.convolve(&x, &window, &w, window.channels),
        };
        Ok((z, None))
    }

    fn norm(
        &self,
        layer: &BatchNorm,
        values: &Vec<f32>,
        statistics: Statistics<Self>,
    ) -> Result<Norm> {
        let buffers = match statistics {
            Statistics::Batch { buffers, .. } => buffers,
            Statistics::Running { buffers } => buffers,
        };
        let statistic = |range| self.constant(&self.buffers, buffers, range);
        let names = [
            self.parameter(values, &layer.weight),
            self.parameter(values, &layer.bias),
            statistic(&layer.running_mean),
            statistic(&layer.running_var),
        ];
        Ok(Norm(Some((names, layer.eps))))
    }

    fn no_norm(&self, _: usize) -> Result<Norm> {
        Ok(Norm(None))
    }

    fn materialize(&self, x: &FusedInput<Self>) -> Result<Name> {
        Ok(self.read(x))
    }

    fn add(&self, x: &FusedInput<Self>, other: &FusedInput<Self>, act: Act) -> Result<Name> {
        let (x, other) = (self.read(x), self.read(other));
        let sum = self.node("Add", &[&x, &other]);
        Ok(self.activate(&sum, act))
    }

    fn per_image(&self, values: &[f32], _: usize, _: usize) -> Result<Name> {
        let shape = [values.len(), 1, 1, 1];
        Ok(self.graph().constant("per_image", &shape, values))
    }

    fn max_pool(&self, x: &FusedInput<Self>, window: &Window) -> Result<(Name, ())> {
        let x = self.read(x);
        let pooled = self.graph().node(
            "MaxPool",
            &[&x],
            &[
                ints("kernel_shape", &[window.kernel; 2]),
                ints("strides", &[window.stride; 2]),
                ints("pads", &pads(window)),
            ],
        );
        Ok((pooled, ()))
    }

    fn pool(&self, x: &FusedInput<Self>, _: usize) -> Result<Name> {
        let x = self.read(x);
        let means = self.node("GlobalAveragePool", &[&x]);
        Ok(self.graph().node("Flatten", &[&means], &[int("axis", 1)]))
    }

    fn squeeze(
        &self,
        layer: &SqueezeExcite,
        values: &Vec<f32>,
        x: &FusedInput<Self>,
        _: usize,
    ) -> Result<((), Name)> {
        let x = self.read(x);
        let means = self.node("GlobalAveragePool", &[&x]);
        let (w, b) = (
            self.parameter(values, &layer.w1),
            self.parameter(values, &layer.b1),
        );
        let hidden = self.conv_1x1(&[&means, &w, &b]);
        let hidden = self.activate(&hidden, layer.act);
        let (w, b) = (
            self.parameter(values, &layer.w2),
            self.parameter(values, &layer.b2),
        );
        let gate = self.conv_1x1(&[&hidden, &w, &b]);
        let gate = match layer.gate {
            Gate::Sigmoid => self.node("Sigmoid", &[&gate]),
            Gate::HardSigmoid => {
                let slope = [float("alpha", 1.0 / 6.0), float("beta", 0.5)];
                self.graph().node("HardSigmoid", &[&gate], &slope)
            }
        };
        Ok(((), gate))
    }

    fn linear(&self, layer: &Linear, values: &Vec<f32>, x: &Name) -> Result<(Name, Name)> {
        let w = self.parameter(values, &layer.weight);
        let b = self.parameter(values, &layer.bias);
        let u = self.graph().node("Gemm", &[x, &w, &b], &[int("transB", 1)]);
        Ok((self.activate(&u, layer.act), u))
    }

    fn tokens(
        &self,
        layer: &Positions,
        values: &Vec<f32>,
        patches: &Name,
        grid: (usize, usize),
    ) -> Result<Name> {
        let (count, dim) = (grid.0 * grid.1, layer.dim);
        // What patches of zeros would become is what is added to all: bias, class token, positions.
        let mut added = vec![0.0; (1 + count) * dim];
        tokens::forward(layer, values, &vec![0.0; count * dim], grid, &mut added);
        let added = self
            .graph()
            .constant("positions", &[1, 1 + count, dim], &added);
        let rows = self.reshape(patches, &[0, dim as i64, count as i64]);
        let rows = self.transpose(&rows, &[0, 2, 1]);
        let before = self.graph().whole(&[6], &[0, 1, 0, 0, 0, 0]);
        let rows = self.node("Pad", &[&rows, &before]);
        Ok(self.node("Add", &[&rows, &added]))
    }

    fn row_stats(&self, _: &Name, _: &LayerNorm) -> Result<()> {
        Ok(())
    }

    fn layer_norm(&self, layer: &LayerNorm, values: &Vec<f32>, x: &Name, (): &()) -> Result<Name> {
        Ok(self.norm_rows(x, layer, values))
    }

    fn rows_linear(
        &self,
        layer: &Linear,
        values: &Vec<f32>,
        x: &Rows<Self>,
        shortcut: Option<&Name>,
    ) -> Result<Name> {
        let x = match x.read {
            Read::Plain => x.x.clone(),
            Read::Act(act) => self.activate(x.x, act),
            Read::Norm(layer, ()) => self.norm_rows(x.x, layer, values),
        };
        let w = self.transposed(values, layer);
        let b = self.parameter(values, &layer.bias);
        let product = self.node("MatMul", &[&x, &w]);
        let y = self.node("Add", &[&product, &b]);
        Ok(match shortcut {
            Some(shortcut) => self.node("Add", &[&y, shortcut]),
            None => y,
        })
    }

    fn attention(&self, qkv: &Name, heads: &Heads) -> Result<Name> {
        let head = heads.dim / heads.heads;
        let split = [0, 0, 3, heads.heads as i64, head as i64];
        let split = self.reshape(qkv, &split);
        let split = self.transpose(&split, &[2, 0, 3, 1, 4]);
        let [q, k, v] = [0, 1, 2].map(|part| {
            let index = self.graph().whole(&[], &[part]);
            self.graph()
                .node("Gather", &[&split, &index], &[int("axis", 0)])
        });
        let k = self.transpose(&k, &[0, 1, 3, 2]);
        let scores = self.node("MatMul", &[&q, &k]);
        let scale = self.scalar("attention_scale", 1.0 / (head as f32).sqrt());
        let scores = self.node("Mul", &[&scores, &scale]);
        let weights = self.graph().node("Softmax", &[&scores], &[int("axis", -1)]);
        let mixed = self.node("MatMul", &[&weights, &v]);
        let mixed = self.transpose(&mixed, &[0, 2, 1, 3]);
        Ok(self.reshape(&mixed, &[0, 0, heads.dim as i64]))
    }

    fn first_rows(&self, x: &Name, _: usize, _: usize) -> Result<Name> {
        let index = self.graph().whole(&[], &[0]);
        Ok(self.graph().node("Gather", &[x, &index], &[int("axis", 1)]))
    }

    fn l2_normalize(&self, x: &mut Name, _: usize) -> Result<()> {
        let length = [int("axis", -1), int("p", 2)];
        *x = self.graph().node("LpNormalization", &[x], &length);
        Ok(())
    }

    fn multiply(&self, own: &mut Name, by: &Name) -> Result<()> {
        *own = self.node("Mul", &[own, by]);
        Ok(())
    }
}
