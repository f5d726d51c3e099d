//! How a GPU's memory is shared out before the first step: a step is run dry, on memory that is only
//! counted, with as many micro-batches of photos at once as there are, then half as many, until they fit.

use crate::config::{ActivationDtype, Config};
use crate::learner::Learner;
use crate::method::Setup;
use crate::{Error, Result};
use seedling_data::{Normalize, Photo, Rect, ViewParams};
use seedling_ssl::ops::TrainingBackend;
use seedling_ssl::step::{Pixels, Undrawn, Views};

/// What a GPU that does not say how much it has is taken to have, in MB.
const UNSAID_MB: usize = 1024;

/// Of what a GPU has, the fraction that a run may take: others use it, too.
const USABLE_RATIO: f64 = 0.9;

const MB: usize = 1_000_000;

/// `backend` in the precision that is asked for.
///
/// # Errors
/// It has no such precision.
pub(crate) fn in_precision<B: TrainingBackend>(backend: B, config: &Config) -> Result<B> {
    match config.precision {
        ActivationDtype::Bf16 => backend.halved(),
        ActivationDtype::Tf32 => backend.with_tf32(),
        ActivationDtype::F32 => Ok(backend),
    }
}

/// `backend` in the precision that is asked for, as it takes as many micro-batches at once as its memory holds,
/// and what a step of fewer photos in a micro-batch would take.
///
/// # Errors
/// Not even one micro-batch fits; the message says which would.
pub(crate) fn fitted<B: TrainingBackend>(backend: B, setup: Setup<'_>) -> Result<(B, Smaller)> {
    let config = setup.config;
    let backend = in_precision(backend, config)?;
    if backend.dry_run().is_none() {
        return Ok((backend, Smaller::default()));
    }
    let has = backend
        .memory_bytes()
        .map(|has| (has as f64 * USABLE_RATIO) as usize);
    let may_take = match config.device_mb {
        0 => has.unwrap_or(UNSAID_MB * MB),
        asked => has.unwrap_or(usize::MAX).min(asked * MB),
    };
    let smaller = Smaller::than(&backend.taking(1), setup)?;
    let mut at_once = config.batch_size / config.bn_group.max(1);
    loop {
        let taken = taken(&backend.taking(at_once), setup)?;
        if taken <= may_take && taken < usize::MAX {
            return Ok((backend.taking(at_once), smaller));
        }
        if at_once <= 1 {
            let takes = match taken {
                usize::MAX => "needs a tensor larger than the device holds in one piece".into(),
                taken => format!(
                    "takes {} MB of the device's memory, and {} MB may be taken{}",
                    taken.div_ceil(MB),
                    may_take / MB,
                    match (config.device_mb, has) {
                        (0, None) =>
                            " of one that does not say what it has (--set device_mb=M says it)",
                        _ => "",
                    }
                ),
            };
            return Err(Error::Device(format!(
                "a step in micro-batches of bn_group = {} {takes}: {}",
                config.bn_group,
                smaller.within(may_take)
            )));
        }
        at_once /= 2;
    }
}

/// What a step takes by `bn_group`, the largest first: the run's halves and their halves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Smaller(Vec<(usize, usize)>);

impl Smaller {
    fn than<B: TrainingBackend>(backend: &B, setup: Setup<'_>) -> Result<Smaller> {
        let (config, mut found) = (setup.config, Vec::new());
        let mut bn_group = config.bn_group / 2;
        while bn_group >= 2 && config.batch_size.is_multiple_of(bn_group) {
            let config = Config {
                bn_group,
                ..config.clone()
            };
            let smaller = Setup {
                config: &config,
                ..setup
            };
            found.push((bn_group, taken(backend, smaller)?));
            bn_group /= 2;
        }
        Ok(Smaller(found))
    }

    /// What would fit into so many bytes, in words.
    pub(crate) fn within(&self, bytes: usize) -> String {
        match self
            .0
            .iter()
            .find(|(_, taken)| *taken <= bytes && *taken < usize::MAX)
        {
            Some((microbatch, taken)) => {
                format!(
                    "--set bn_group={microbatch} takes {} MB",
                    taken.div_ceil(MB)
                )
            }
            None => {
                "no smaller bn_group would fit; lower image_size or batch_size, or freeze stages"
                    .into()
            }
        }
    }

    /// A backend's complaint, and if it is that memory is at its end, what would fit.
    pub(crate) fn explain(&self, error: Error) -> Error {
        match error {
            Error::DeviceMemory { held } => Error::Device(format!(
                "the device's memory is at its end with {} MB taken: {}",
                held / MB,
                self.within((held as f64 * USABLE_RATIO) as usize)
            )),
            other => other,
        }
    }
}

/// Bytes that a step takes.
fn taken<B: TrainingBackend>(backend: &B, setup: Setup<'_>) -> Result<usize> {
    let config = setup.config;
    let Some(stage) = backend.dry_run() else {
        return Ok(0);
    };
    let mut learner = Learner::new(stage.clone(), setup, None)?;
    let photos: Vec<u32> = (0..config.batch_size as u32).collect();
    let views = Views {
        pixels: &Unseen::new(config.image_size, backend.makes_views()),
        size: (config.image_size, config.image_size),
        photos: &photos,
    };
    learner.step(&views, 0, 0.0)?;
    Ok(stage.most_bytes())
}

/// Pixels that nobody looks at, or photos and views of them, as large as any.
#[derive(Debug)]
struct Unseen(Option<(Photo, ViewParams)>);

impl Unseen {
    fn new(side: usize, views: bool) -> Unseen {
        // Half as long again as wide: few photos are longer.
        let (width, height) = (3 * side, 2 * side);
        let photo = Photo {
            width,
            height,
            rgb: vec![0; width * height * 3],
        };
        let whole = ViewParams {
            crop: Rect {
                left: 0,
                top: 0,
                width,
                height,
            },
            jitter: Vec::new(),
            gray: false,
            blur: None,
            flip: false,
        };
        Unseen(views.then_some((photo, whole)))
    }
}

impl Pixels for Unseen {
    fn write(&self, _: usize, _: &[usize], _: &mut [f32]) {}

    fn undrawn(&self, _: usize, rows: &[usize]) -> Option<Undrawn<'_>> {
        let (photo, view) = self.0.as_ref()?;
        let views = vec![(photo, view); rows.len()];
        Some((views, Normalize::default()))
    }
}
