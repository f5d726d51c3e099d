//! A graph in the making.

use super::proto::{self, Attribute, Dim, Node, Property, Tensor};
use super::{INPUT, OUTPUT};
use std::collections::{HashMap, HashSet};

/// Nodes and constants, and what they compute already.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: Vec<Node>,
    constants: Vec<Tensor>,
    named: HashSet<String>,
    /// The output of a node of this operation, inputs and attributes: nothing is computed twice.
    known: HashMap<String, String>,
    /// The name of the last result.
    pub result: String,
    pub metadata: Vec<(String, String)>,
}

/// A node's attribute.
pub fn float(name: &str, value: f32) -> Attribute {
    Attribute {
        name: name.into(),
        float: Some(value),
        kind: 1,
        ..Attribute::default()
    }
}

/// A node's attribute.
pub fn int(name: &str, value: i64) -> Attribute {
    Attribute {
        name: name.into(),
        int: Some(value),
        kind: 2,
        ..Attribute::default()
    }
}

/// A node's attribute.
pub fn ints(name: &str, values: &[usize]) -> Attribute {
    Attribute {
        name: name.into(),
        ints: values.iter().map(|x| *x as i64).collect(),
        kind: 7,
        ..Attribute::default()
    }
}

impl Graph {
    /// The output of such a node, which is added unless it is there.
    pub fn node(&mut self, operation: &str, inputs: &[&str], attributes: &[Attribute]) -> String {
        let key = format!("{operation} {inputs:?} {attributes:?}");
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let name = format!("{}_{}", operation.to_lowercase(), self.nodes.len());
        self.nodes.push(Node {
            inputs: inputs.iter().map(|x| (*x).to_string()).collect(),
            outputs: vec![name.clone()],
            // Another name than its output's: readers may keep both in one place.
            name: format!("node_{}", self.nodes.len()),
            operation: operation.into(),
            attributes: attributes.to_vec(),
        });
        self.known.insert(key, name.clone());
        name
    }

    /// A constant of that name.
    pub fn constant(&mut self, name: &str, dims: &[usize], values: &[f32]) -> String {
        let raw = || values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.add(name, dims, 1, raw)
    }

    /// A constant of whole numbers.
    pub fn whole(&mut self, dims: &[usize], values: &[i64]) -> String {
        let name = format!("whole_{values:?}_{dims:?}").replace([' ', '[', ']', ','], "_");
        let raw = || values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.add(&name, dims, 7, raw)
    }

    fn add(
        &mut self,
        name: &str,
        dims: &[usize],
        kind: i32,
        raw: impl FnOnce() -> Vec<u8>,
    ) -> String {
        if self.named.insert(name.to_string()) {
            self.constants.push(Tensor {
                dims: dims.iter().map(|x| *x as i64).collect(),
                kind,
                name: name.into(),
                raw: raw(),
            });
        }
        name.to_string()
    }

    /// The whole file, for images of `side` pixels.
    pub fn model(mut self, side: usize, features: usize) -> proto::Model {
        let names = self.nodes.iter_mut();
        let names = names.flat_map(|node| node.inputs.iter_mut().chain(&mut node.outputs));
        names
            .filter(|name| **name == self.result)
            .for_each(|name| *name = OUTPUT.into());
        let value = |name: &str, rest: &[usize]| {
            let batch = Dim {
                value: None,
                name: Some("batch".into()),
            };
            let fixed = rest.iter().map(|dim| Dim {
                value: Some(*dim as i64),
                name: None,
            });
            proto::Value {
                name: name.into(),
                kind: Some(proto::Kind {
                    tensor: Some(proto::TensorKind {
                        kind: 1,
                        shape: Some(proto::Shape {
                            dims: std::iter::once(batch).chain(fixed).collect(),
                        }),
                    }),
                }),
            }
        };
        proto::Model {
            // What came with opset 17.
            ir_version: 8,
            producer_name: "seedling".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            opset_import: vec![proto::OperatorSet {
                domain: String::new(),
                version: 17,
            }],
            metadata: self
                .metadata
                .into_iter()
                .map(|(key, value)| Property { key, value })
                .collect(),
            graph: Some(proto::Graph {
                nodes: self.nodes,
                name: "seedling".into(),
                initializers: self.constants,
                inputs: vec![value(INPUT, &[3, side, side])],
                outputs: vec![value(OUTPUT, &[features])],
            }),
        }
    }
}
