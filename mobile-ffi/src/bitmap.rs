//! Android's bitmaps, without their pixels crossing the virtual machine's heap. What uniffi cannot say:
//! Kotlin's `Bitmaps.keep` calls it directly.

use jni::errors::ThrowRuntimeExAndDefault;
use jni::objects::{JByteArray, JClass, JObject};
use jni::sys::jboolean;
use jni::{Env, EnvUnowned};
use ndk::bitmap::{Bitmap, BitmapError, BitmapFormat};
use seedling_core::data::pixels::{Alpha, Pixels};

/// Why a bitmap could not be taken: the text of Java's exception.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the bitmap cannot be read ({0})")]
    Bitmap(#[from] BitmapError),
    #[error("the bitmap is no ARGB_8888")]
    Format,
    #[error(transparent)]
    Pixels(#[from] seedling_core::Error),
    #[error(transparent)]
    Java(#[from] jni::errors::Error),
}

/// `io.seedling.Bitmaps.keep(bitmap, hasAlpha, isPremultiplied)`: what a list of photos keeps of it,
/// encoded. Throws a `RuntimeException`.
#[unsafe(no_mangle)]
pub extern "system" fn Java_io_seedling_Bitmaps_keep<'a>(
    mut unowned: EnvUnowned<'a>,
    _class: JClass<'a>,
    bitmap: JObject<'a>,
    has_alpha: jboolean,
    is_premultiplied: jboolean,
) -> JByteArray<'a> {
    let alpha = match (has_alpha, is_premultiplied) {
        (false, _) => Alpha::Ignored,
        (true, true) => Alpha::Premultiplied,
        (true, false) => Alpha::Straight,
    };
    unowned
        .with_env(|env| kept(env, &bitmap, alpha))
        .resolve::<ThrowRuntimeExAndDefault>()
}

fn kept<'a>(env: &mut Env<'a>, bitmap: &JObject, alpha: Alpha) -> Result<JByteArray<'a>, Refused> {
    // SAFETY: both come from the call that is in progress, and stay valid as long as it does. The two crates
    // describe the same pointers in versions of their own.
    let bitmap = unsafe { Bitmap::from_jni(env.get_raw().cast(), bitmap.as_raw().cast()) };
    let info = bitmap.info()?;
    if info.format() != BitmapFormat::RGBA_8888 {
        return Err(Refused::Format);
    }
    let stride = info.stride() as usize;
    let locked = Locked::new(&bitmap)?;
    // SAFETY: a locked bitmap has so many rows of so many bytes at this address, and nobody moves them.
    let bytes =
        unsafe { std::slice::from_raw_parts(locked.address, stride * info.height() as usize) };
    let pixels = Pixels {
        width: info.width(),
        height: info.height(),
        stride,
        alpha,
        bytes,
    };
    let reduced = pixels.reduced("bitmap")?;
    drop(locked);
    Ok(env.byte_array_from_slice(&reduced)?)
}

/// Pixels that stay where they are.
struct Locked<'a> {
    bitmap: &'a Bitmap,
    address: *const u8,
}

impl Locked<'_> {
    fn new(bitmap: &Bitmap) -> Result<Locked<'_>, BitmapError> {
        let address = bitmap.lock_pixels()?.cast_const().cast();
        Ok(Locked { bitmap, address })
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // Fails only for what is not locked.
        let _ = self.bitmap.unlock_pixels();
    }
}
