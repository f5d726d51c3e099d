//! A GPU that runs nothing and writes down what it is asked for: every kernel, in the language of a
//! GPU that is not there. So kernels for CUDA and Metal are compiled where neither is installed.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cubecl::bytes::Bytes;
use cubecl::device::{Device, DeviceId, DeviceService, ServerUtilitiesHandle};
use cubecl::future::DynFut;
use cubecl::ir::{
    DeviceProperties, ElemType, FloatKind, HardwareProperties, MemoryDeviceProperties,
    TargetProperties, VectorSize,
};
use cubecl::prelude::*;
use cubecl::profile::{ProfileDuration, TimingMethod};
use cubecl::server::{
    Binding, ComputeServer, CopyDescriptor, KernelArguments, ProfileError, ProfilingToken,
    ServerCommunication, ServerError, ServerUtilities,
};
use cubecl::stream_id::StreamId;
use cubecl::zspace::{Shape, Strides};
use cubecl::{Compiler, CubeTask, MemoryAllocationMode, MemoryUsage};
use cubecl_cpp::cuda::CudaDialect;
use cubecl_cpp::cuda::mma::CudaWmmaCompiler;
use cubecl_cpp::shared::{CompilationOptions, CppCompiler, CppSupportedFeatures};
use cubecl_runtime::allocator::ContiguousMemoryLayoutPolicy;
use cubecl_runtime::logging::ServerLogger;
use cubecl_runtime::memory_management::ManagedMemoryHandle;
use cubecl_runtime::storage::{BytesResource, BytesStorage, ManagedResource};

/// What kernels are written in.
pub trait Language: Compiler + Default {
    fn options() -> Self::CompilationOptions;

    /// Where they are written down.
    fn sheet() -> &'static Mutex<Sheet>;

    /// Whether activations may be kept in numbers of this dtype.
    fn knows(dtype: FloatKind) -> bool;
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

    fn knows(_: FloatKind) -> bool {
        true
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

    fn knows(dtype: FloatKind) -> bool {
        dtype != FloatKind::BF16
    }
}

/// Kernels that were asked for.
#[derive(Debug)]
pub struct Sheet {
    /// Source and entry point, by a name that tells variants apart; or why there is none.
    kernels: BTreeMap<String, Result<Source, String>>,
    launches: usize,
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
            launches: 0,
        }
    }
}

/// Runs `work` on a GPU that writes down, and returns the kernels of all such work so far in this
/// program, and how many times `work` asked for one.
pub fn written<L: Language>(
    work: impl FnOnce(ComputeClient<Recorder<L>>),
) -> (BTreeMap<String, Result<Source, String>>, usize) {
    let before = lock(L::sheet()).launches;
    let client = Recorder::<L>::client(&Nowhere);
    work(client.clone());
    client
        .flush()
        .expect("a GPU that does nothing has no trouble");
    let sheet = lock(L::sheet());
    (sheet.kernels.clone(), sheet.launches - before)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The runtime.
pub struct Recorder<L>(PhantomData<fn() -> L>);

impl<L> Clone for Recorder<L> {
    fn clone(&self) -> Self {
        Recorder(PhantomData)
    }
}

impl<L> fmt::Debug for Recorder<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recorder")
    }
}

/// Its only device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Nowhere;

impl Device for Nowhere {
    fn from_id(_: DeviceId) -> Self {
        Nowhere
    }

    fn to_id(&self) -> DeviceId {
        DeviceId {
            type_id: 0,
            index_id: 0,
        }
    }
}

const CUBES: (u32, u32, u32) = (65_535, 65_535, 65_535);

impl<L: Language> Runtime for Recorder<L> {
    type Compiler = L;
    type Server = Server<L>;
    type Device = Nowhere;

    fn client(device: &Nowhere) -> ComputeClient<Self> {
        ComputeClient::load(device)
    }

    fn name(_: &ComputeClient<Self>) -> &'static str {
        "recorder"
    }

    fn max_cube_count() -> (u32, u32, u32) {
        CUBES
    }

    fn can_read_tensor(_: &Shape, _: &Strides) -> bool {
        true
    }

    fn target_properties() -> TargetProperties {
        TargetProperties::default()
    }

    fn enumerate_devices(_: u16, (): &()) -> Vec<DeviceId> {
        vec![Nowhere.to_id()]
    }
}

/// Its server.
pub struct Server<L: Language> {
    utilities: Arc<ServerUtilities<Self>>,
    seen: HashSet<KernelId>,
}

impl<L: Language> fmt::Debug for Server<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({})", self.seen.len())
    }
}

impl<L: Language> DeviceService for Server<L> {
    fn init(_: DeviceId) -> Self {
        let memory = MemoryDeviceProperties {
            max_page_size: 1 << 34,
            alignment: 256,
        };
        let hardware = HardwareProperties {
            load_width: 128,
            plane_size_min: 32,
            plane_size_max: 32,
            max_bindings: 32,
            max_shared_memory_size: 48 << 10,
            max_cube_count: CUBES,
            max_units_per_cube: 1024,
            max_cube_dim: (1024, 1024, 64),
            num_streaming_multiprocessors: None,
            num_cpu_cores: None,
            num_tensor_cores: None,
            min_tensor_cores_dim: None,
            max_vector_size: VectorSize::MAX,
        };
        let features = Default::default();
        let mut properties =
            DeviceProperties::new(features, memory, hardware, TimingMethod::System);
        for dtype in [FloatKind::F32, FloatKind::F16, FloatKind::BF16] {
            if L::knows(dtype) {
                let usage = cubecl::ir::features::TypeUsage::all();
                properties.register_type_usage(ElemType::Float(dtype), usage);
            }
        }
        let policy = ContiguousMemoryLayoutPolicy::new(256);
        let logger = Arc::new(ServerLogger::default());
        Server {
            utilities: Arc::new(ServerUtilities::new(properties, logger, (), policy)),
            seen: HashSet::new(),
        }
    }

    fn utilities(&self) -> ServerUtilitiesHandle {
        self.utilities.clone()
    }
}

impl<L: Language> ServerCommunication for Server<L> {
    const SERVER_COMM_ENABLED: bool = false;
}

impl<L: Language> ComputeServer for Server<L> {
    type Kernel = Box<dyn CubeTask<L>>;
    type Info = ();
    type MemoryLayoutPolicy = ContiguousMemoryLayoutPolicy;
    type Storage = BytesStorage;

    fn initialize_memory(&mut self, _: ManagedMemoryHandle, _: u64, _: StreamId) {}

    fn logger(&self) -> Arc<ServerLogger> {
        self.utilities.logger.clone()
    }

    fn utilities(&self) -> Arc<ServerUtilities<Self>> {
        self.utilities.clone()
    }

    /// Nothing was ever computed: all is zero.
    fn read(
        &mut self,
        descriptors: Vec<CopyDescriptor>,
        _: StreamId,
    ) -> DynFut<Result<Vec<Bytes>, ServerError>> {
        let zeros = |one: &CopyDescriptor| {
            let len = one.handle.size_in_used() as usize;
            Bytes::from_bytes_vec(vec![0; len])
        };
        let all = descriptors.iter().map(zeros).collect();
        Box::pin(async move { Ok(all) })
    }

    fn write(&mut self, _: Vec<(CopyDescriptor, Bytes)>, _: StreamId) {}

    fn sync(&mut self, _: StreamId) -> DynFut<Result<(), ServerError>> {
        Box::pin(async move { Ok(()) })
    }

    fn get_resource(
        &mut self,
        _: Binding,
        _: StreamId,
    ) -> Result<ManagedResource<BytesResource>, ServerError> {
        unreachable!("nobody asks for memory that is not there")
    }

    unsafe fn launch(
        &mut self,
        kernel: Self::Kernel,
        _: CubeCount,
        _: KernelArguments,
        mode: ExecutionMode,
        _: StreamId,
    ) {
        lock(L::sheet()).launches += 1;
        if !self.seen.insert(kernel.id()) {
            return;
        }
        let compiled = kernel.compile(
            &mut L::default(),
            &L::options(),
            mode,
            kernel.address_type(),
        );
        let source = match compiled {
            Ok(compiled) => Ok(Source {
                text: compiled.source,
                entry: compiled.entrypoint_name,
            }),
            Err(error) => Err(error.to_string()),
        };
        let mut sheet = lock(L::sheet());
        let name = format!("{:03} {}", sheet.kernels.len(), kernel.name());
        sheet.kernels.insert(name, source);
    }

    fn flush(&mut self, _: StreamId) -> Result<(), ServerError> {
        Ok(())
    }

    fn memory_usage(&mut self, _: StreamId) -> Result<MemoryUsage, ServerError> {
        Ok(MemoryUsage {
            number_allocs: 0,
            bytes_in_use: 0,
            bytes_padding: 0,
            bytes_reserved: 0,
        })
    }

    fn memory_cleanup(&mut self, _: StreamId) {}

    fn start_profile(&mut self, _: StreamId) -> Result<ProfilingToken, ServerError> {
        Ok(ProfilingToken { id: 0 })
    }

    fn end_profile(
        &mut self,
        _: StreamId,
        _: ProfilingToken,
    ) -> Result<ProfileDuration, ProfileError> {
        Err(ProfileError::NotRegistered {
            backtrace: cubecl::backtrace::BackTrace::capture(),
        })
    }

    fn allocation_mode(&mut self, _: MemoryAllocationMode, _: StreamId) {}
}
