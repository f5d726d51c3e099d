//! The example of a head and a loss written with candle-nn: it learns, and images may come as candle has them.

use candle_core::{Device, Module, Tensor};
use seedling_core::backbones::Arch;
use seedling_core::candle::EncoderModule;
use seedling_core::encoder::{Architecture, Encoder, Head, Mode};
use seedling_core::nn::workspace::Workspace;
use seedling_tests::formula::{fill, numbers};

#[path = "../../core/examples/candle_head.rs"]
#[allow(dead_code)]
mod example;

#[test]
fn ten_steps_learn_what_is_on_rendered_photos() {
    let losses = example::train(&Device::Cpu, 10).unwrap();
    assert_eq!(losses.len(), 10);
    // Eight classes by chance are ln 8.
    assert!((losses[0] - 8f32.ln()).abs() < 1.0, "{losses:?}");
    assert!(losses[9] < 0.5 * losses[0], "{losses:?}");
}

#[test]
fn images_are_candle_s_and_have_three_channels() {
    let architecture = Architecture::new(Arch::MOBILENET_V3_SMALL, Some(Head::Simple));
    let mut encoder = Encoder::new(architecture, false, 0, &Workspace::default()).unwrap();
    fill(&mut encoder.params);
    let (n, h, w) = (2, 33, 40);
    let pixels = numbers(1, n * 3 * h * w, 2.0);
    let rows = |i: usize| (i / (w * 3) % h, i / 3 % w, i % 3, i / (h * w * 3));
    let last: Vec<f32> = (0..pixels.len())
        .map(|i| {
            let (y, x, c, photo) = rows(i);
            pixels[((photo * 3 + c) * h + y) * w + x]
        })
        .collect();
    let own = encoder
        .images(n, (h, w), |out| out.copy_from_slice(&last))
        .unwrap();
    let expected = encoder.embed(&own).unwrap().to_vec();
    let module = EncoderModule::new(encoder, Mode::Eval);
    let images = Tensor::from_vec(pixels, (n, 3, h, w), &Device::Cpu).unwrap();
    let got = module.forward(&images).unwrap();
    assert_eq!(got.dims(), [n, 128]);
    assert_eq!(
        got.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
        expected
    );
    let gray = images.narrow(1, 0, 1).unwrap();
    let refused = module.forward(&gray).unwrap_err().to_string();
    assert!(refused.contains("RGB"), "{refused}");
}
