//! A GPU that runs nothing and writes down what it is asked for: every kernel, in the language of a
//! GPU that is not there. So kernels for CUDA and Metal are compiled where neither is installed.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cubecl::ir::features::{MmaConfig, TypeUsage};
use cubecl::ir::{DeviceProperties, ElemType, FloatKind};
use cubecl::prelude::*;
use cubecl::{Compiler, CubeTask};
use cubecl_cpp::cuda::CudaDialect;
use cubecl_cpp::cuda::mma::CudaWmmaCompiler;
use cubecl_cpp::shared::{CompilationOptions, CppCompiler, CppSupportedFeatures};

use crate::runtime::{Imagined, Launch, Machine, Nowhere};

/// What kernels are written in.
pub trait Language: Compiler + Default {
    fn options() -> Self::CompilationOptions;

    /// Where they are written down.
    fn sheet() -> &'static Mutex<Sheet>;

    /// What its GPUs have beyond f32.
    fn describe(properties: &mut DeviceProperties);
}

/// CUDA's C++, as cubecl writes it for GPUs since Volta.
pub type Cuda = CppCompiler<CudaDialect<CudaWmmaCompiler>>;

/// WebGPU's language, which is translated to Metal's where Metal is.
pub type Wgsl = cubecl::wgpu::WgslCompiler;

impl Language for Cuda {
    fn options() -> CompilationOptions {
        let supports_features = CppSupportedFeatures {
            fast_math: true,
            grid_constants: true,
            ..CppSupportedFeatures::default()
        };
        CompilationOptions {
            warp_size: 32,
            supports_features,
        }
    }

    fn sheet() -> &'static Mutex<Sheet> {
        static SHEET: Mutex<Sheet> = Mutex::new(Sheet::new());
        &SHEET
    }

    /// What GPUs have since Ampere.
    fn describe(properties: &mut DeviceProperties) {
        stored(
            properties,
            &[FloatKind::F32, FloatKind::F16, FloatKind::BF16],
        );
        let float = |dtype| ElemType::Float(dtype).into();
        for (dtype, k) in [
            (FloatKind::BF16, 16),
            (FloatKind::F16, 16),
            (FloatKind::TF32, 8),
        ] {
            properties.features.matmul.cmma.insert(MmaConfig {
                a_type: float(dtype),
                b_type: float(dtype),
                cd_type: float(FloatKind::F32),
                m: 16,
                n: 16,
                k,
            });
        }
        let tf32 = ElemType::Float(FloatKind::TF32);
        properties.register_type_usage(tf32, TypeUsage::Conversion);
        properties.features.memory_reinterpret = true;
        properties.features.alignment = true;
        properties.hardware.max_shared_memory_size = 227 << 10;
    }
}

impl Language for Wgsl {
    fn options() -> Self::CompilationOptions {
        Self::CompilationOptions::default()
    }

    fn sheet() -> &'static Mutex<Sheet> {
        static SHEET: Mutex<Sheet> = Mutex::new(Sheet::new());
        &SHEET
    }

    fn describe(properties: &mut DeviceProperties) {
        stored(properties, &[FloatKind::F32, FloatKind::F16]);
        properties.hardware.max_shared_memory_size = 16 << 10;
    }
}

/// Numbers may be kept in these.
fn stored(properties: &mut DeviceProperties, dtypes: &[FloatKind]) {
    for dtype in dtypes {
        properties.register_type_usage(ElemType::Float(*dtype), TypeUsage::all());
    }
}

/// Kernels that were asked for.
#[derive(Debug)]
pub struct Sheet {
    /// Source and entry point, by a name that tells variants apart; or why there is none.
    kernels: BTreeMap<String, Result<Source, String>>,
}

/// A kernel in its language.
#[derive(Clone, Debug)]
pub struct Source {
    pub text: String,
    pub entry: String,
}

impl Sheet {
    const fn new() -> Sheet {
        Sheet {
            kernels: BTreeMap::new(),
        }
    }
}

/// A GPU that writes down.
pub type Recorder<L> = Imagined<Pen<L>>;

/// What it writes with.
pub struct Pen<L> {
    seen: HashSet<KernelId>,
    language: PhantomData<fn() -> L>,
}

impl<L> Default for Pen<L> {
    fn default() -> Self {
        Pen {
            seen: HashSet::new(),
            language: PhantomData,
        }
    }
}

impl<L> fmt::Debug for Pen<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pen({})", self.seen.len())
    }
}

/// Runs `work` on a GPU that writes down, and returns the kernels of all such work so far in this program.
pub fn written<L: Language>(
    work: impl FnOnce(ComputeClient<Recorder<L>>),
) -> BTreeMap<String, Result<Source, String>> {
    let client = Recorder::<L>::client(&Nowhere);
    work(client.clone());
    client
        .flush()
        .expect("a GPU that does nothing has no trouble");
    lock(L::sheet()).kernels.clone()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The kernel as its language has it.
///
/// # Errors
/// The language can't say it.
pub fn source<L: Language>(
    kernel: &dyn CubeTask<L>,
    mode: ExecutionMode,
) -> Result<Source, String> {
    let compiled = kernel.compile(
        &mut L::default(),
        &L::options(),
        mode,
        kernel.address_type(),
    );
    compiled
        .map(|compiled| Source {
            text: compiled.source,
            entry: compiled.entrypoint_name,
        })
        .map_err(|error| error.to_string())
}

impl<L: Language> Machine for Pen<L> {
    type Language = L;
    const RUNS: bool = false;

    fn describe(properties: &mut DeviceProperties) {
        L::describe(properties);
    }

    fn launch(&mut self, kernel: &dyn CubeTask<L>, launch: Launch<'_>) {
        if !self.seen.insert(kernel.id()) {
            return;
        }
        let source = source(kernel, launch.mode);
        let mut sheet = lock(L::sheet());
        let name = format!("{:03} {}", sheet.kernels.len(), kernel.name());
        sheet.kernels.insert(name, source);
    }
}
