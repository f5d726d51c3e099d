//! The projection head on top of the features: fully connected layers with ReLU between, no batch
//! norm.

use crate::activation::Act;
use crate::backend::ForwardOps;
use crate::layer::Linear;
use crate::layout::Layout;
use seedling_base::error::{Error, Result};

/// Which head. Below, d is the length of the features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// d - d - 128, as MoCo v2.
    Simple,
    /// d - 2d - 128, as the paper's improved recipe.
    Wide,
    /// d - d - d - 128 (the paper's table 9).
    Deep,
    /// d - d - 256.
    Dim256,
    /// d - d - 128, half of the hidden numbers left out at random (table 9).
    Dropout,
    /// d - 2048 - 128, as light-moco.
    Hidden2048,
}

/// Length of most heads' embeddings.
pub const EMBEDDING_DIM: usize = 128;

/// A hidden layer's width.
#[derive(Clone, Copy, Debug)]
enum Width {
    /// So many times the features'.
    Features(usize),
    Fixed(usize),
}

/// A head's shape.
struct Facts {
    name: &'static str,
    hidden: &'static [Width],
    embedding: usize,
    /// Drop probability of the last hidden layer.
    dropped: f32,
}

impl Head {
    /// Every head.
    pub const ALL: [Head; 6] = [
        Head::Simple,
        Head::Wide,
        Head::Deep,
        Head::Dim256,
        Head::Dropout,
        Head::Hidden2048,
    ];

    /// The names of all, for settings that name one.
    pub const NAMES: [&str; Head::ALL.len()] = {
        let (mut names, mut i) = ([""; Head::ALL.len()], 0);
        while i < names.len() {
            names[i] = Head::ALL[i].name();
            i += 1;
        }
        names
    };

    const fn facts(self) -> Facts {
        use Width::{Features, Fixed};
        let facts = Facts {
            name: "simple",
            hidden: &[Features(1)],
            embedding: EMBEDDING_DIM,
            dropped: 0.0,
        };
        match self {
            Head::Simple => facts,
            Head::Wide => Facts {
                name: "wide",
                hidden: &[Features(2)],
                ..facts
            },
            Head::Deep => Facts {
                name: "deep",
                hidden: &[Features(1), Features(1)],
                ..facts
            },
            Head::Dim256 => Facts {
                name: "dim256",
                embedding: 256,
                ..facts
            },
            Head::Dropout => Facts {
                name: "dropout",
                dropped: 0.5,
                ..facts
            },
            Head::Hidden2048 => Facts {
                name: "hidden2048",
                hidden: &[Fixed(2048)],
                ..facts
            },
        }
    }

    /// The name in configurations.
    pub const fn name(self) -> &'static str {
        self.facts().name
    }

    /// Length of the embeddings it makes.
    pub const fn embedding_dim(self) -> usize {
        self.facts().embedding
    }

    /// Declares `projection_head.0`, `.2`, ...: a number is left for the ReLU between two layers, as
    /// in a sequence of PyTorch's.
    pub(super) fn layers(self, layout: &mut Layout, features: usize) -> Vec<Layer> {
        let Facts {
            hidden,
            embedding,
            dropped,
            ..
        } = self.facts();
        let widths = hidden.iter().map(|width| match *width {
            Width::Features(times) => times * features,
            Width::Fixed(width) => width,
        });
        let mut inputs = features;
        let mut layers = Vec::new();
        for (i, outputs) in widths.chain([embedding]).enumerate() {
            let (act, dropped) = match hidden.len() - i {
                0 => (Act::Identity, 0.0),
                1 => (Act::Relu, dropped),
                _ => (Act::Relu, 0.0),
            };
            let name = format!("projection_head.{}", 2 * i);
            layers.push(Layer {
                linear: Linear::new(layout, &name, (inputs, outputs), act),
                dropped,
            });
            inputs = outputs;
        }
        layers
    }
}

/// A layer of a head.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub(super) linear: Linear,
    /// Drop probability of its outputs.
    pub(super) dropped: f32,
}

/// What a layer of a head keeps for its backward.
#[derive(Debug)]
pub(super) struct HeadCache<B: ForwardOps> {
    pub(super) x: B::Buf,
    /// The value before the activation.
    pub(super) u: B::Buf,
    /// What its outputs were multiplied by, where some were left out.
    pub(super) kept: Option<B::Buf>,
}

impl std::str::FromStr for Head {
    type Err = Error;

    fn from_str(name: &str) -> Result<Head> {
        Head::ALL
            .into_iter()
            .find(|h| h.name() == name)
            .ok_or_else(|| {
                let known = Head::NAMES.join(", ");
                Error::Config(format!("unknown head '{name}' (known: {known})"))
            })
    }
}
