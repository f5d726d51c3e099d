//! A CUDA GPU in a program: kernels as cubecl writes them for CUDA, compiled by the system's C++ compiler
//! against `emulator/cuda.h` and run on the CPU, unit by unit. For what no other stand-in can run (tensor
//! cores, bf16), and slowly. What it can't show: speed, and whether NVIDIA's hardware does as it says.

use std::collections::HashMap;
use std::ffi::{c_uint, c_void};
use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use cubecl::CubeTask;
use cubecl::ir::DeviceProperties;
use cubecl::prelude::*;
use libloading::Library;
use rayon::prelude::*;

use crate::recorder::{Cuda, Language, Source, source};
use crate::runtime::{Imagined, Launch, Machine};

/// The device.
pub type Emulated = Imagined<Emulator>;

/// What runs kernels.
#[derive(Debug, Default)]
pub struct Emulator {
    kernels: HashMap<KernelId, Kernel>,
}

/// A compiled kernel.
#[derive(Clone, Debug)]
struct Kernel {
    run: Run,
    /// It is gone when nobody has it.
    _library: Arc<Library>,
}

/// Arguments, cubes, units of a cube, and a number that their order depends on.
type Run = unsafe extern "C" fn(*const *const c_void, *const c_uint, *const c_uint, c_uint);

/// What has been compiled, by [`key`].
static COMPILED: Mutex<Option<HashMap<String, Kernel>>> = Mutex::new(None);

/// A source's lines in order: each time cubecl writes a kernel, it puts types in another order, and shared memory
/// in other places.
fn key(text: &str) -> String {
    let places = |line: &&str| !line.contains("dynamic_shared_mem[");
    let mut lines: Vec<&str> = text.lines().filter(places).collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// Kernels that are compiled as one: the compiler reads the standard library for each time it is called.
const TOGETHER: usize = 24;

/// Bytes of a cube's shared memory: the most that a kernel takes.
const SHARED: usize = 72 << 10;

/// Compiles what will be asked for, on all cores.
///
/// # Errors
/// There is no compiler, or it refuses.
pub fn prepare(sources: &[&Source]) -> Result<(), String> {
    // One after another: what two ask for is compiled once.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let new = |source: &&&Source| known(&source.text).is_none();
    let sources: Vec<&Source> = sources.iter().filter(new).copied().collect();
    let parts: Vec<_> = sources.par_chunks(TOGETHER).map(compile).collect();
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    let compiled = compiled.get_or_insert_default();
    for part in parts {
        compiled.extend(part?);
    }
    Ok(())
}

fn known(text: &str) -> Option<Kernel> {
    let compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    compiled.as_ref()?.get(&key(text)).cloned()
}

/// The system's C++ compiler, or why there is none.
///
/// # Errors
/// It can't be called.
pub fn compiler() -> Result<(), String> {
    if cfg!(not(all(target_arch = "x86_64", target_os = "linux"))) {
        return Err("the emulator changes stacks as Linux has them on x86-64".into());
    }
    let found = Command::new("c++").arg("--version").output();
    found
        .map(|_| ())
        .map_err(|error| format!("c++, the system's C++ compiler: {error}"))
}

fn compile(sources: &[&Source]) -> Result<Vec<(String, Kernel)>, String> {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let (from, to) = (folder.path().join("k.cpp"), folder.path().join("k.so"));
    std::fs::write(&from, program(sources)).map_err(|e| e.to_string())?;
    let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("emulator/cuda.h");
    // No fused multiply-add but where a kernel asks for it: a sum is rounded as often as it is written.
    let made = Command::new("c++")
        .args(["-std=c++17", "-O1", "-march=native", "-ffp-contract=off"])
        .args(["-shared", "-fPIC", "-w", "-include"])
        .args([&header, &from])
        .arg("-o")
        .arg(&to)
        .output()
        .map_err(|e| e.to_string())?;
    if !made.status.success() {
        let said = String::from_utf8_lossy(&made.stderr);
        let said: Vec<&str> = said.lines().take(30).collect();
        return Err(said.join("\n"));
    }
    // SAFETY: it was made of kernels, and runs nothing when it is loaded.
    let library = unsafe { Library::new(&to) }.map_err(|e| e.to_string())?;
    let library = Arc::new(library);
    let found = sources.iter().enumerate().map(|(i, source)| {
        let name = format!("run_{i}\0");
        // SAFETY: `program` writes functions of this type.
        let run = unsafe { library.get::<Run>(name.as_bytes()) };
        let kernel = Kernel {
            run: *run.map_err(|e| e.to_string())?,
            _library: library.clone(),
        };
        Ok((key(&source.text), kernel))
    });
    found.collect()
}

/// These kernels, each in a namespace of its own, and what calls them.
fn program(sources: &[&Source]) -> String {
    let mut all = String::new();
    for (i, Source { text, entry }) in sources.iter().enumerate() {
        let lines = text.lines().filter(|line| !line.starts_with("#include"));
        let body: Vec<&str> = lines.collect();
        let body = body.join("\n").replace("extern \"C\" ", "");
        let barriers = body.contains("__sync");
        writeln!(
            all,
            "namespace k{i} {{\n{body}\n__align__(128) unsigned char dynamic_shared_mem[{SHARED}];\n}}\n\
             extern \"C\" void run_{i}(void* const* arguments, const unsigned* cubes, const unsigned* units, \
             unsigned seed) {{\n    emulator::run(k{i}::{entry}, arguments, k{i}::dynamic_shared_mem, \
             {}, {barriers}, cubes, units, seed);\n}}",
            shared(text),
        )
        .expect("a string can be written to");
    }
    all
}

/// Bytes of shared memory that a kernel may use: all or none.
fn shared(text: &str) -> usize {
    match text.contains("dynamic_shared_mem") {
        true => SHARED,
        false => 0,
    }
}

impl Emulator {
    fn kernel(&mut self, kernel: &dyn CubeTask<Cuda>, mode: ExecutionMode) -> Kernel {
        if let Some(known) = self.kernels.get(&kernel.id()) {
            return known.clone();
        }
        let source = source(kernel, mode).expect("CUDA's language can say it");
        let found = known(&source.text).unwrap_or_else(|| {
            if let Err(error) = prepare(&[&source]) {
                panic!("{}: {error}\n{}", source.entry, source.text);
            }
            known(&source.text).expect("it was just compiled")
        });
        self.kernels.insert(kernel.id(), found.clone());
        found
    }
}

impl Machine for Emulator {
    type Language = Cuda;
    const RUNS: bool = true;

    fn describe(properties: &mut DeviceProperties) {
        Cuda::describe(properties);
    }

    fn launch(&mut self, kernel: &dyn CubeTask<Cuda>, launch: Launch<'_>) {
        let found = self.kernel(kernel, launch.mode);
        let buffers = launch.buffers.iter();
        let mut arguments: Vec<*const c_void> = buffers
            .map(|buffer| buffer.get_write_ptr_and_length().0.cast_const().cast())
            .collect();
        let (info, dynamic) = launch.info.split_at(launch.dynamic.min(launch.info.len()));
        if !dynamic.is_empty() {
            arguments.push(dynamic.as_ptr().cast());
        }
        arguments.push(info.as_ptr().cast());
        let cubes = [launch.cubes.0, launch.cubes.1, launch.cubes.2];
        let dim = kernel.id().cube_dim;
        let units = [dim.x, dim.y, dim.z];
        // SAFETY: these are the kernel's own arguments, as CUDA would be given them.
        unsafe { (found.run)(arguments.as_ptr(), cubes.as_ptr(), units.as_ptr(), 1) }
    }
}
