//! Which network a file holds, under whose names, and where in it.

use crate::naming::Naming;
use crate::tensors::Tensors;
use seedling_core::backbones::Arch;
use seedling_core::encoder::{Architecture, Head};
use seedling_core::layout::{Entry, Layout};
use seedling_core::weights::HEAD_PREFIX;
use seedling_core::{Error, Result};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// What the caller knows of a file already.
#[derive(Clone, Debug, Default)]
pub struct Hints {
    /// The network.
    pub arch: Option<Arch>,
    /// Part of the names of the tensors wanted, where the file holds several networks.
    pub part: Option<String>,
}

/// What a file was found to hold.
#[derive(Debug)]
pub struct Recognized {
    pub arch: Arch,
    pub naming: Naming,
    /// What all names of the network begin with.
    pub root: String,
    /// Which program wrote it, as far as names tell.
    pub program: &'static str,
    pub head: Option<Head>,
    /// Our name of each tensor taken, and the file's, in the network's order; the head's behind it.
    pub taken: Vec<(Entry, String)>,
    /// Names of tensors that were left, by reason.
    pub left: BTreeMap<&'static str, Vec<String>>,
    /// What names cannot tell and the user should know.
    pub notes: Vec<String>,
}

/// Roots that hold a slowly moving copy, not what was trained.
const COPIES: [&str; 7] = [
    "encoder_k",
    "momentum",
    "teacher",
    "key_",
    "_key",
    "ema",
    "target",
];

/// Finds the network that `tensors` hold.
///
/// # Errors
/// None that is known; the message says what comes nearest.
pub fn recognize(tensors: &Tensors, hints: &Hints) -> Result<Recognized> {
    let mut nearest: Option<Attempt> = None;
    // A copy only where nothing else fits.
    let mut copy = None;
    for &arch in Arch::ALL {
        if hints.arch.is_some_and(|wanted| wanted != arch) {
            continue;
        }
        let layout = Architecture::new(arch, None).layout();
        for naming in Naming::ALL {
            let Some(wanted) = wanted(arch, naming, &layout) else {
                continue;
            };
            for root in roots(tensors, &wanted, hints) {
                let attempt = Attempt::new(tensors, (arch, naming), root, &wanted);
                if attempt.fits() {
                    if !is_copy(&attempt.root) || hints.part.is_some() {
                        return complete(tensors, attempt, wanted);
                    }
                    copy.get_or_insert_with(|| (attempt, wanted.clone()));
                    continue;
                }
                if nearest
                    .as_ref()
                    .is_none_or(|best| attempt.matched > best.matched)
                {
                    nearest = Some(attempt);
                }
            }
        }
    }
    match copy {
        Some((attempt, wanted)) => complete(tensors, attempt, wanted),
        None => Err(Error::file(
            tensors.path(),
            refusal(tensors, hints, nearest),
        )),
    }
}

/// Our entries, each with its name in `naming`; `None` where that has no such network.
fn wanted(arch: Arch, naming: Naming, layout: &Layout) -> Option<Vec<(Entry, String)>> {
    let entries = layout.entries().iter();
    entries
        .map(|entry| Some((entry.clone(), naming.name(arch, entry)?)))
        .collect()
}

/// Whatever stands before the name of the network's first tensor, the trained network's first.
fn roots(tensors: &Tensors, wanted: &[(Entry, String)], hints: &Hints) -> Vec<String> {
    let mut roots = BTreeSet::new();
    // Two of them, so that a file in which one is missing is still told from one of nothing.
    for (_, anchor) in wanted.iter().take(1).chain(wanted.last()) {
        for name in tensors.names() {
            if let Some(root) = name.strip_suffix(anchor.as_str())
                && (root.is_empty() || root.ends_with('.'))
                && hints
                    .part
                    .as_ref()
                    .is_none_or(|part| root.contains(part.as_str()))
            {
                roots.insert(root.to_string());
            }
        }
    }
    let mut roots: Vec<String> = roots.into_iter().collect();
    roots.sort_by_key(|root| (is_copy(root), root.len()));
    roots.truncate(16);
    roots
}

fn is_copy(root: &str) -> bool {
    COPIES.iter().any(|copy| root.contains(copy))
}

/// A network held against a file.
struct Attempt {
    arch: Arch,
    naming: Naming,
    root: String,
    matched: usize,
    missing: Vec<String>,
    /// Name, shape wanted, shape found.
    misshapen: Vec<(String, Vec<usize>, Vec<usize>)>,
}

impl Attempt {
    fn new(
        tensors: &Tensors,
        (arch, naming): (Arch, Naming),
        root: String,
        wanted: &[(Entry, String)],
    ) -> Attempt {
        let mut attempt = Attempt {
            arch,
            naming,
            root,
            matched: 0,
            missing: Vec::new(),
            misshapen: Vec::new(),
        };
        for (entry, theirs) in wanted {
            let name = format!("{}{theirs}", attempt.root);
            match tensors.shape(&name) {
                None => attempt.missing.push(name),
                Some(shape) if same(shape, &entry.shape) => attempt.matched += 1,
                Some(shape) => {
                    attempt
                        .misshapen
                        .push((name, entry.shape.clone(), shape.to_vec()));
                }
            }
        }
        attempt
    }

    fn fits(&self) -> bool {
        self.missing.is_empty() && self.misshapen.is_empty()
    }
}

/// Whether two shapes are the same but for ones at the end: a layer is the same numbers as a 1x1
/// convolution.
fn same(a: &[usize], b: &[usize]) -> bool {
    let trimmed = |shape: &[usize]| -> Vec<usize> {
        let ones = shape.iter().rev().take_while(|dim| **dim == 1).count();
        shape[..shape.len() - ones].to_vec()
    };
    trimmed(a) == trimmed(b)
}

fn complete(
    tensors: &Tensors,
    attempt: Attempt,
    wanted: Vec<(Entry, String)>,
) -> Result<Recognized> {
    let Attempt {
        arch, naming, root, ..
    } = attempt;
    let modules: BTreeSet<String> = wanted.iter().map(|(_, theirs)| module(theirs)).collect();
    let mut taken: Vec<(Entry, String)> = wanted
        .into_iter()
        .map(|(entry, theirs)| (entry, format!("{root}{theirs}")))
        .collect();
    let mut notes = Vec::new();
    let (head, normed) = find_head(tensors, arch, &root);
    let head = head.map(|(head, layers)| {
        taken.extend(layers);
        head
    });
    let names: HashSet<&str> = taken.iter().map(|(_, name)| name.as_str()).collect();
    let mut left: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    let mut foreign = Vec::new();
    for name in tensors.names().filter(|name| !names.contains(name)) {
        let reason = reason(name, (arch, naming), &root, &normed);
        match reason {
            NOT_OURS if is_inside(name, &root, &modules) => foreign.push(name),
            _ => left.entry(reason).or_default().push(name.to_string()),
        }
    }
    if !foreign.is_empty() {
        let shown = foreign
            .iter()
            .take(3)
            .copied()
            .collect::<Vec<_>>()
            .join(", ");
        let more = if foreign.len() > 3 { ", ..." } else { "" };
        return Err(Error::file(
            tensors.path(),
            format!(
                "has all tensors of {arch} and {} more inside it ({shown}{more}): a network with layers that ours \
                 does not have, whose features would come out wrong",
                foreign.len()
            ),
        ));
    }
    let program = program(tensors, naming, &root);
    if arch == Arch::DEIT_TINY {
        notes.push(
            "a file does not say how many heads attention has; six are computed (timm's own \
             deit_tiny_patch16_224 has three, of the same shapes)"
                .into(),
        );
    }
    Ok(Recognized {
        arch,
        naming,
        root,
        program,
        head,
        taken,
        left,
        notes,
    })
}

/// The first part of a tensor's name: the network's own child that it belongs to.
fn module(name: &str) -> String {
    name.split('.').next().unwrap_or_default().to_string()
}

/// Children of networks that others have and ours do not, beside the blocks: what goes through them changes
/// the features.
const FOREIGN_MODULES: [&str; 9] = [
    "norm_pre",
    "fc_norm",
    "ln_pre",
    "ln_post",
    "attn_pool",
    "pre_logits",
    "conv_norm",
    "stem",
    "neck",
];

/// Whether a tensor that is not ours lies on the way to the features: in one of the network's own children,
/// or as a parameter of the network itself.
fn is_inside(name: &str, root: &str, modules: &BTreeSet<String>) -> bool {
    let Some(inside) = name.strip_prefix(root) else {
        return false;
    };
    let module = module(inside);
    let own = !inside.contains('.') && (inside.ends_with("_token") || inside.ends_with("_embed"));
    modules.contains(&module) || FOREIGN_MODULES.contains(&&*module) || own
}

fn program(tensors: &Tensors, naming: Naming, root: &str) -> &'static str {
    let any = |part: &str| tensors.names().any(|name| name.contains(part));
    match () {
        () if root.contains("encoder_q") || root.contains("encoder_k") => {
            if naming == Naming::DLi14 {
                "MoCo, as ssl-small has it"
            } else {
                "MoCo"
            }
        }
        () if root.contains("student") || root.contains("teacher") => "SEED",
        () if root.contains("base_encoder") || root.contains("momentum_encoder") => "MoCo v3",
        () if root.ends_with("backbone.") && any("projector.") => "solo-learn",
        () if root.ends_with("backbone.") && any("projection_head.") => "lightly",
        () => naming.title(),
    }
}

/// Layers that stand behind the features, as the network's own classifier or beside it.
const HEADS: [&str; 9] = [
    "fc",
    "classifier",
    "classifier.1",
    "classifier.3",
    "head",
    "mlp",
    "projector",
    "projection_head.layers",
    "projection_head",
];

/// A head and its layers.
type FoundHead = (Head, Vec<(Entry, String)>);

/// A head of ours among the layers behind the features; and the beginnings of the names of heads that
/// have batch norm, which ours never have.
fn find_head(tensors: &Tensors, arch: Arch, root: &str) -> (Option<FoundHead>, Vec<String>) {
    // A projector lies beside the backbone.
    let outer = root
        .trim_end_matches('.')
        .rsplit_once('.')
        .map_or("", |(outer, _)| outer);
    let outer = match outer.is_empty() {
        true => String::new(),
        false => format!("{outer}."),
    };
    // What each of our heads would have, asked once.
    let ours = Head::ALL.map(|head| {
        let layout = Architecture::new(arch, Some(head)).layout();
        let entries = layout.entries().iter();
        let entries = entries.filter(|entry| entry.name.starts_with(HEAD_PREFIX));
        (head, entries.cloned().collect::<Vec<Entry>>())
    });
    let mut normed = Vec::new();
    for base in HEADS
        .iter()
        .flat_map(|head| [format!("{root}{head}."), format!("{outer}{head}.")])
    {
        let mut layers = Vec::new();
        let mut has_norm = false;
        for name in tensors.names().filter(|name| name.starts_with(&base)) {
            let rest = &name[base.len()..];
            has_norm |= rest.contains("running_mean");
            if let Some(number) = rest
                .strip_suffix(".weight")
                .and_then(|n| n.parse::<usize>().ok())
                && tensors.shape(name).is_some_and(|shape| shape.len() == 2)
            {
                layers.push((number, name.trim_end_matches("weight").to_string()));
            }
        }
        layers.sort();
        if has_norm {
            normed.push(base);
            continue;
        }
        for (head, entries) in &ours {
            if entries.len() != 2 * layers.len() {
                continue;
            }
            let pairs: Vec<(Entry, String)> = entries
                .iter()
                .zip(
                    layers
                        .iter()
                        .flat_map(|(_, layer)| [format!("{layer}weight"), format!("{layer}bias")]),
                )
                .map(|(entry, name)| (entry.clone(), name))
                .collect();
            let fits = |(entry, name): &(Entry, String)| {
                tensors
                    .shape(name)
                    .is_some_and(|shape| same(shape, &entry.shape))
            };
            if pairs.iter().all(fits) {
                return (Some((*head, pairs)), normed);
            }
        }
    }
    (None, normed)
}

/// The reason for what has no other.
const NOT_OURS: &str = "no part of the network up to its features";

/// Why a tensor is left.
fn reason(
    name: &str,
    (arch, naming): (Arch, Naming),
    root: &str,
    normed: &[String],
) -> &'static str {
    let inside = name.strip_prefix(root);
    let classes = |n: &str| {
        let layer = naming.class_layer(arch);
        n.strip_prefix(layer)
            .is_some_and(|rest| rest.starts_with('.'))
    };
    match () {
        () if name.ends_with("num_batches_tracked") => "a count of batches, of no consequence",
        () if normed.iter().any(|base| name.starts_with(base)) => {
            "a head with batch norm, which ours do not have"
        }
        () if name.contains("queue") => "a queue, which belongs to the run that filled it",
        () if name.starts_with("optimizer") || name.contains("optimizer_states") => {
            "an optimizer's, which belongs to the run it served"
        }
        () if name.ends_with("total_ops") || name.ends_with("total_params") => {
            "a count of operations, of no consequence"
        }
        () if inside.is_some_and(classes) => "the classes behind the features",
        () if inside.is_none() && is_copy(name) => "a slowly moving copy, or the teacher",
        () if inside.is_some() => NOT_OURS,
        () => "no part of this network",
    }
}

fn refusal(tensors: &Tensors, hints: &Hints, nearest: Option<Attempt>) -> String {
    let Some(nearest) = nearest.filter(|nearest| nearest.matched > 0) else {
        let some: Vec<&str> = tensors.names().take(3).collect();
        let wanted = match (&hints.arch, &hints.part) {
            (_, Some(part)) => format!("no network that is known has names with \"{part}\""),
            (Some(arch), None) => format!("not the weights of {arch}"),
            (None, None) => "not the weights of a network that is known".into(),
        };
        return format!("{wanted} (tensors: {}, ...)", some.join(", "));
    };
    let some_of = |names: &[String]| {
        let shown: Vec<&str> = names.iter().take(3).map(String::as_str).collect();
        format!("{} ({})", names.len(), shown.join(", "))
    };
    let mut text = format!(
        "nearest to {} under {}'s names, with {} of its tensors",
        nearest.arch,
        nearest.naming.title(),
        nearest.matched
    );
    if !nearest.missing.is_empty() {
        text.push_str(&format!("; missing {}", some_of(&nearest.missing)));
    }
    if let Some((name, wanted, found)) = nearest.misshapen.first() {
        text.push_str(&format!(
            "; {} of another shape ({name}: {found:?} instead of {wanted:?})",
            nearest.misshapen.len()
        ));
    }
    text
}
