//! Kernels in the languages of GPUs that are not here: CUDA's C++ through NVIDIA's own compiler, for sm_80 and
//! sm_90, and all of them in Metal's language. What they compute is tested in gpu_ops.rs and gpu_emulated.rs.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::ptr::null_mut;

use naga::back::msl;
use naga::front::wgsl;
use naga::valid::{Capabilities, ValidationFlags, Validator};
use rayon::prelude::*;
use seedling_core::backbones::Arch;
use seedling_core::bench::{ImagesIn, StepBench, Steps};
use seedling_core::config::Config;
use seedling_core::nn::backend::DeviceOps;
use seedling_core::nn::gpu::Gpu;
use seedling_tests::recorder::{Cuda, Language, Recorder, Source, Wgsl, written};
use seedling_tests::require::skipped;

use crate::ops::{self, Operation, See, found};
use crate::runs;

/// Operations are done, and nothing is compared.
pub struct Write<L: Language>(pub Gpu<Recorder<L>>);

impl<L: Language> See for Write<L> {
    fn operation(&mut self, _: &str, operation: &impl Operation) {
        found(&self.0, operation, self.0.dtype());
    }
}

/// Every kernel there is: of all operations, of a pass of every network, and of a step of a run.
fn kernels<L: Language>() -> BTreeMap<String, Source> {
    let kernels = written::<L>(|client| {
        let gpu = Gpu::new(client);
        let halved = gpu.halved().unwrap();
        ops::all(&mut Write(gpu.clone()));
        ops::on_maps(&mut Write(halved.clone()));
        // One of each family: others have the same layers in other numbers.
        for name in ["resnet50", "efficientnet_b0", "deit_tiny"] {
            let arch: Arch = name.parse().unwrap();
            runs::passes(&gpu, arch);
            runs::passes(&halved, arch);
        }
        runs::a_step_of_each(&gpu);
        runs::a_step_of_each(&halved);
        runs::a_step_of_each(&gpu.taking(2));
    });
    assert!(kernels.len() > 100, "only {} kernels", kernels.len());
    let written = kernels.into_iter().map(|(name, source)| match source {
        Ok(source) => (name, source),
        Err(error) => panic!("{name}: {error}"),
    });
    written.collect()
}

#[test]
fn every_kernel_in_metals_language() {
    let kernels = kernels::<Wgsl>();
    let failed: Vec<String> = kernels
        .par_iter()
        .filter_map(|(name, source)| match metal(source) {
            Ok(text) if text.contains("kernel void") => None,
            Ok(text) => Some(format!("{name}: no kernel\n{text}")),
            Err(error) => Some(format!("{name}: {error}\n{}", source.text)),
        })
        .collect();
    println!("{} kernels in Metal's language", kernels.len());
    assert!(failed.is_empty(), "{} failed, {}", failed.len(), failed[0]);
}

/// As wgpu does it where Metal is.
fn metal(source: &Source) -> Result<String, String> {
    let module = wgsl::parse_str(&source.text).map_err(|e| e.emit_to_string(&source.text))?;
    let capabilities = Capabilities::SHADER_FLOAT16 | Capabilities::SUBGROUP;
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .validate(&module)
        .map_err(|e| e.emit_to_string(&source.text))?;
    let options = msl::Options {
        lang_version: (2, 4),
        fake_missing_bindings: true,
        ..msl::Options::default()
    };
    let pipeline = msl::PipelineOptions::default();
    msl::write_string(&module, &info, &options, &pipeline)
        .map(|(text, _)| text)
        .map_err(|e| e.to_string())
}

#[test]
fn every_kernel_through_nvidias_compiler() {
    let nvrtc = match Nvrtc::find() {
        Ok(nvrtc) => nvrtc,
        Err(why) => {
            skipped("nvrtc", why);
            return;
        }
    };
    let kernels = kernels::<Cuda>();
    let (ampere, hopper) = (some_of_each(&kernels, 1), some_of_each(&kernels, 3));
    let work: Vec<(&[(&String, &Source)], &str)> = [(&ampere, "sm_80"), (&hopper, "sm_90")]
        .into_iter()
        .flat_map(|(all, arch)| all.chunks(TOGETHER).map(move |some| (some, arch)))
        .collect();
    let failed: Vec<String> = work
        .par_iter()
        .filter(|(some, arch)| {
            !nvrtc
                .cubin(&together(some), arch)
                .is_ok_and(|bytes| bytes > 0)
        })
        // Each by itself, to tell which.
        .flat_map(|(some, arch)| some.par_iter().map(move |kernel| (kernel, arch)))
        .map(
            |((name, source), arch)| match nvrtc.cubin(&source.text, arch) {
                Ok(bytes) => format!("{name} for {arch}: {bytes} bytes, and none with others"),
                Err(log) => format!("{name} for {arch}: {log}\n{}", source.text),
            },
        )
        .collect();
    println!(
        "{} kernels for sm_80, {} for sm_90, of {}",
        ampere.len(),
        hopper.len(),
        kernels.len()
    );
    assert!(failed.is_empty(), "{} failed, {}", failed.len(), failed[0]);
}

/// Of kernels that differ only in sizes and in what they read through, `most`: the first, the last, and between.
/// There are more than a thousand in all, and NVIDIA's compiler takes a second for three.
fn some_of_each(kernels: &BTreeMap<String, Source>, most: usize) -> Vec<(&String, &Source)> {
    let mut alike: BTreeMap<&str, Vec<(&String, &Source)>> = BTreeMap::new();
    for (name, source) in kernels {
        alike.entry(&source.entry).or_default().push((name, source));
    }
    let some = alike.into_values().flat_map(|all| {
        let last = all.len() - 1;
        let places: BTreeSet<usize> = (0..most).map(|i| last * i / (most - 1).max(1)).collect();
        places.into_iter().map(move |place| all[place])
    });
    some.collect()
}

/// Kernels count places in 32 bits: what would wrap around is refused.
#[test]
fn tensors_of_too_many_numbers_are_refused() {
    written::<Cuda>(|client| {
        let gpu = Gpu::new(client);
        let error = gpu.alloc(1 << 32).unwrap_err().to_string();
        assert!(error.contains("2^32"), "{error}");
        gpu.alloc(1 << 20).unwrap();
    });
}

/// Each launch costs the host some microseconds: what a step of MobileNetV3-Large asks of CUDA.
#[test]
fn a_step_is_few_launches() {
    let config = Config {
        arch: Arch::MOBILENET_V3_LARGE,
        image_size: 32,
        batch_size: 64,
        bn_group: 64,
        queue_size: 64,
        ..Config::pretrain()
    };
    let (mut launches, mut waits) = (0, 0);
    written::<Cuda>(|client| {
        let gpu = Gpu::new(client).halved().unwrap();
        let mut bench = StepBench::with_backend(&gpu, &config, ImagesIn::Device).unwrap();
        let mut step = || {
            bench.step().unwrap();
            let stats = bench.gpu().unwrap().0;
            (stats.launches, stats.waits)
        };
        let (first, second) = (step(), step());
        (launches, waits) = (second.0 - first.0, second.1 - first.1);
    });
    println!("{launches} launches a step");
    assert!(launches <= MOST_LAUNCHES, "{launches}");
    assert_eq!(waits, 1, "the host waits at a step's end, once");
}

/// See [`a_step_is_few_launches`].
const MOST_LAUNCHES: u64 = 607;

/// Kernels that are compiled at a time: most of the work is to read NVIDIA's headers.
const TOGETHER: usize = 16;

/// The sources of these kernels as one, each in a namespace of its own behind the headers.
fn together(kernels: &[(&String, &Source)]) -> String {
    let mut headers = BTreeSet::new();
    let mut bodies = String::new();
    for (i, (_, source)) in kernels.iter().enumerate() {
        bodies += &format!("namespace k{i} {{\n");
        for line in source.text.lines() {
            match line.starts_with("#include") {
                true => _ = headers.insert(line),
                false => bodies += &(line.replace("extern \"C\" ", "") + "\n"),
            }
        }
        bodies += "}\n";
    }
    headers.into_iter().collect::<Vec<_>>().join("\n") + "\n" + &bodies
}

/// NVIDIA's runtime compiler, which needs neither a GPU nor a driver.
struct Nvrtc {
    library: libloading::Library,
    /// What it looks for by name, and finds where that is loaded already.
    _builtins: libloading::Library,
    /// Where `cuda_fp16.h` is.
    headers: PathBuf,
}

/// What `.ci/nvrtc` fills, or where somebody says that the wheels are.
fn folder() -> PathBuf {
    match std::env::var_os("SEEDLING_NVRTC") {
        Some(folder) => folder.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/nvrtc"),
    }
}

fn find(folder: &Path, matches: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    entries.sort();
    let named = |path: &&PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        path.is_file() && name.is_some_and(matches)
    };
    if let Some(found) = entries.iter().find(named) {
        return Some(found.clone());
    }
    let folders = entries.iter().filter(|path| path.is_dir());
    folders.into_iter().find_map(|path| find(path, matches))
}

type Program = *mut c_void;
type Create = unsafe extern "C" fn(
    *mut Program,
    *const c_char,
    *const c_char,
    c_int,
    *const *const c_char,
    *const *const c_char,
) -> c_int;
type Compile = unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int;
type Size = unsafe extern "C" fn(Program, *mut usize) -> c_int;
type Log = unsafe extern "C" fn(Program, *mut c_char) -> c_int;
type Destroy = unsafe extern "C" fn(*mut Program) -> c_int;

impl Nvrtc {
    fn find() -> Result<Nvrtc, String> {
        let folder = folder();
        let missing = |what: &str| {
            let folder = folder.display();
            format!("no {what} in {folder} (.ci/nvrtc fetches NVIDIA's wheels)")
        };
        let library = |name: &str| name.starts_with("libnvrtc.so");
        let path = find(&folder, &library).ok_or_else(|| missing("libnvrtc.so"))?;
        let header = find(&folder, &|name| name == "cuda_fp16.h");
        let headers = header.ok_or_else(|| missing("cuda_fp16.h"))?;
        let builtins = |name: &str| name.starts_with("libnvrtc-builtins.so");
        let builtins = find(&folder, &builtins).ok_or_else(|| missing("libnvrtc-builtins.so"))?;
        // SAFETY: NVIDIA's libraries, which do nothing when they are loaded.
        let load = |path| unsafe { libloading::Library::new(path) }.map_err(|e| e.to_string());
        let (builtins, library) = (load(builtins)?, load(path)?);
        Ok(Nvrtc {
            library,
            _builtins: builtins,
            headers: headers.with_file_name(""),
        })
    }

    /// The size of what `source` becomes, or the compiler's words.
    fn cubin(&self, source: &str, arch: &str) -> Result<usize, String> {
        let source = CString::new(source).unwrap();
        let headers = self.headers.display();
        let options = [
            format!("--gpu-architecture={arch}"),
            format!("--include-path={headers}"),
            format!("--include-path={headers}cccl"),
        ]
        .map(|option| CString::new(option).unwrap());
        let options = [0, 1, 2].map(|i: usize| options[i].as_ptr());
        let mut program = null_mut();
        let mut size = 0;
        // SAFETY: the names and arguments of nvrtc.h; every pointer lives until the call returns, and
        // the log has the room that it asked for.
        unsafe {
            let create = self.library.get::<Create>(b"nvrtcCreateProgram").unwrap();
            let compile = self.library.get::<Compile>(b"nvrtcCompileProgram").unwrap();
            let log_size = self.library.get::<Size>(b"nvrtcGetProgramLogSize").unwrap();
            let log = self.library.get::<Log>(b"nvrtcGetProgramLog").unwrap();
            let cubin = self.library.get::<Size>(b"nvrtcGetCUBINSize").unwrap();
            let destroy = self.library.get::<Destroy>(b"nvrtcDestroyProgram").unwrap();
            let (none, name) = (std::ptr::null(), std::ptr::null());
            create(&mut program, source.as_ptr(), name, 0, none, none);
            let rc = compile(program, options.len() as c_int, options.as_ptr());
            let result = match rc {
                0 => {
                    cubin(program, &mut size);
                    Ok(size)
                }
                rc => {
                    log_size(program, &mut size);
                    let mut text = vec![0 as c_char; size + 1];
                    log(program, text.as_mut_ptr());
                    let text = CStr::from_ptr(text.as_ptr()).to_string_lossy();
                    Err(format!("error {rc}: {text}"))
                }
            };
            destroy(&mut program);
            result
        }
    }
}
