use seedling_core::{backbones::Arch, encoder::*, moco::*, nn::workspace::Workspace, queue::Queue};
use std::time::Instant;
fn main() {
    let a: Vec<usize> = std::env::args().skip(1).map(|x| x.parse().unwrap()).collect();
    let (batch, group, threads) = (a[0], a[1], a[2]);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().unwrap();
    let ws = Workspace::default();
    let arch = Architecture::new(Arch::MobilenetV3Large, Some(Head::Simple));
    let q = Encoder::new(arch, true, 0, &ws).unwrap();
    let k = Encoder::new(arch, false, 0, &ws).unwrap();
    seedling_core::nn::init::initialise(&q.params, 0);
    let config = MocoConfig { temperature: 0.2, key_momentum: 0.99, symmetric: false, bn_group: group, mode: Mode::Train { norm_momentum: 0.1 }, mask_own_photo: false };
    let mut m = Moco::new(q, k, Queue::random(4096, 128, 0), config).unwrap();
    let mut rng = seedling_core::rng::Rng::new(0, seedling_core::rng::Purpose::Augment, 0, 0);
    let v: Vec<f32> = (0..batch * 224 * 224 * 3).map(|_| rng.normal()).collect();
    let photos: Vec<u32> = (0..batch as u32).collect();
    let views = Views { images: [&v, &v], size: (224, 224), photos: &photos };
    let mut times = vec![];
    for s in 0..6 {
        let t = Instant::now();
        let st = m.step(&views, &key_orders(0, s, batch)).unwrap();
        times.push(t.elapsed().as_secs_f64());
        if s == 0 { println!("loss {}", st.loss); }
    }
    times.sort_by(f64::total_cmp);
    let hwm = std::fs::read_to_string("/proc/self/status").unwrap().lines().find(|l| l.starts_with("VmHWM")).unwrap().to_string();
    println!("batch {batch} group {group}: {:.1} img/s best {:.1} median; {hwm}", batch as f64 / times[0], batch as f64 / times[times.len()/2]);
}
