//! A GPU that is not there, for cubecl: memory on the host, and kernels handed to a [`Machine`].

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use cubecl::bytes::Bytes;
use cubecl::device::{Device, DeviceId, DeviceService, ServerUtilitiesHandle};
use cubecl::future::DynFut;
use cubecl::ir::{
    DeviceProperties, HardwareProperties, MemoryDeviceProperties, TargetProperties, VectorSize,
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
use cubecl_runtime::allocator::ContiguousMemoryLayoutPolicy;
use cubecl_runtime::logging::ServerLogger;
use cubecl_runtime::memory_management::{
    ManagedMemoryHandle, MemoryConfiguration, MemoryManagement, MemoryManagementOptions,
};
use cubecl_runtime::storage::{BytesResource, BytesStorage, ManagedResource};

/// What becomes of the kernels that are asked for.
pub trait Machine: Default + Send + 'static {
    type Language: Compiler + Default;

    /// Whether kernels run: of what never did, zeros are read.
    const RUNS: bool;

    /// What the device has beyond memory and f32.
    fn describe(properties: &mut DeviceProperties);

    fn launch(&mut self, kernel: &dyn CubeTask<Self::Language>, launch: Launch<'_>);
}

/// How a kernel is asked for.
#[derive(Debug)]
pub struct Launch<'a> {
    pub mode: ExecutionMode,
    pub cubes: (u32, u32, u32),
    /// What is bound, in order.
    pub buffers: Vec<BytesResource>,
    /// Scalars and lengths, and where those begin whose number is not known at compile time.
    pub info: &'a [u64],
    pub dynamic: usize,
}

/// The runtime of a machine.
pub struct Imagined<M>(PhantomData<fn() -> M>);

impl<M> Clone for Imagined<M> {
    fn clone(&self) -> Self {
        Imagined(PhantomData)
    }
}

impl<M> fmt::Debug for Imagined<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Imagined")
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
const ALIGNMENT: u64 = 256;

impl<M: Machine> Runtime for Imagined<M> {
    type Compiler = M::Language;
    type Server = Server<M>;
    type Device = Nowhere;

    fn client(device: &Nowhere) -> ComputeClient<Self> {
        ComputeClient::load(device)
    }

    fn name(_: &ComputeClient<Self>) -> &'static str {
        "imagined"
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
pub struct Server<M: Machine> {
    utilities: Arc<ServerUtilities<Self>>,
    memory: MemoryManagement<BytesStorage>,
    machine: M,
}

impl<M: Machine> fmt::Debug for Server<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server")
    }
}

impl<M: Machine> Server<M> {
    fn resource(&mut self, binding: Binding) -> BytesResource {
        let (start, end) = (binding.offset_start, binding.offset_end);
        let found = self.memory.get_resource(binding.memory, start, end);
        found.expect("what is bound is there")
    }
}

impl<M: Machine> DeviceService for Server<M> {
    fn init(_: DeviceId) -> Self {
        let memory = MemoryDeviceProperties {
            max_page_size: 1 << 34,
            alignment: ALIGNMENT,
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
            DeviceProperties::new(features, memory.clone(), hardware, TimingMethod::System);
        M::describe(&mut properties);
        let logger = Arc::new(ServerLogger::default());
        let memory = MemoryManagement::from_configuration(
            BytesStorage::default(),
            &memory,
            MemoryConfiguration::ExclusivePages,
            logger.clone(),
            MemoryManagementOptions::new("imagined"),
        );
        let policy = ContiguousMemoryLayoutPolicy::new(ALIGNMENT as usize);
        Server {
            utilities: Arc::new(ServerUtilities::new(properties, logger, (), policy)),
            memory,
            machine: M::default(),
        }
    }

    fn utilities(&self) -> ServerUtilitiesHandle {
        self.utilities.clone()
    }
}

impl<M: Machine> ServerCommunication for Server<M> {
    const SERVER_COMM_ENABLED: bool = false;
}

impl<M: Machine> ComputeServer for Server<M> {
    type Kernel = Box<dyn CubeTask<M::Language>>;
    type Info = ();
    type MemoryLayoutPolicy = ContiguousMemoryLayoutPolicy;
    type Storage = BytesStorage;

    fn initialize_memory(&mut self, memory: ManagedMemoryHandle, size: u64, _: StreamId) {
        let reserved = self.memory.reserve(size).expect("the host has memory");
        let bound = self.memory.bind(reserved, memory, 0);
        bound.expect("what was reserved is there");
    }

    fn logger(&self) -> Arc<ServerLogger> {
        self.utilities.logger.clone()
    }

    fn utilities(&self) -> Arc<ServerUtilities<Self>> {
        self.utilities.clone()
    }

    fn read(
        &mut self,
        descriptors: Vec<CopyDescriptor>,
        _: StreamId,
    ) -> DynFut<Result<Vec<Bytes>, ServerError>> {
        let all = descriptors.into_iter().map(|one| {
            let bytes = self.resource(one.handle).read();
            let bytes = if M::RUNS {
                bytes.to_vec()
            } else {
                vec![0; bytes.len()]
            };
            Bytes::from_bytes_vec(bytes)
        });
        let all = all.collect();
        Box::pin(async move { Ok(all) })
    }

    fn write(&mut self, all: Vec<(CopyDescriptor, Bytes)>, _: StreamId) {
        for (to, bytes) in all {
            self.resource(to.handle).write()[..bytes.len()].copy_from_slice(&bytes);
        }
    }

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
        cubes: CubeCount,
        arguments: KernelArguments,
        mode: ExecutionMode,
        _: StreamId,
    ) {
        let CubeCount::Static(x, y, z) = cubes else {
            unreachable!("how many cubes there are is known to the host");
        };
        let buffers = arguments.buffers.into_iter();
        let launch = Launch {
            mode,
            cubes: (x, y, z),
            buffers: buffers.map(|binding| self.resource(binding)).collect(),
            info: &arguments.info.data,
            dynamic: arguments.info.dynamic_metadata_offset,
        };
        self.machine.launch(kernel.as_ref(), launch);
    }

    fn flush(&mut self, _: StreamId) -> Result<(), ServerError> {
        Ok(())
    }

    fn memory_usage(&mut self, _: StreamId) -> Result<MemoryUsage, ServerError> {
        Ok(self.memory.memory_usage())
    }

    fn memory_cleanup(&mut self, _: StreamId) {
        self.memory.cleanup(true);
    }

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
