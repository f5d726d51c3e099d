package io.seedling

import android.content.ContentResolver
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.graphics.ImageDecoder
import android.graphics.Matrix
import android.media.ExifInterface
import android.net.Uri
import android.os.Build
import java.io.FileNotFoundException
import java.io.IOException

/** Adds a picture that the app has decoded. Its pixels are read where Android keeps them, outside the heap. */
fun Photos.add(name: String, bitmap: Bitmap): Photos = add(name, Bitmaps.reduced(bitmap))

/** From Android's pictures to what a list of photos keeps of them. */
internal object Bitmaps {
    /** The shorter side that photos are decoded at: twice what is kept. */
    private const val SIDE = 640

    init {
        // JNA has loaded it, too, but the virtual machine looks for its own functions only in this way.
        System.loadLibrary("seedling_mobile")
    }

    /** What is kept of [bitmap], encoded. */
    fun reduced(bitmap: Bitmap): ByteArray {
        if (bitmap.config == Bitmap.Config.ARGB_8888) return kept(bitmap)
        // Pixels of a picture on the GPU, or of another format, can't be read as they are.
        val copy = bitmap.copy(Bitmap.Config.ARGB_8888, false) ?: throw IOException("the picture cannot be copied")
        return try {
            kept(copy)
        } finally {
            copy.recycle()
        }
    }

    /** What is kept of the picture at [uri]. */
    @Throws(IOException::class)
    fun reduced(resolver: ContentResolver, uri: Uri): ByteArray {
        val bitmap = if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.P) decode(resolver, uri) else decodeOld(resolver, uri)
        return try {
            reduced(bitmap)
        } finally {
            bitmap.recycle()
        }
    }

    private fun kept(bitmap: Bitmap): ByteArray = try {
        keep(bitmap, bitmap.hasAlpha(), bitmap.isPremultiplied)
    } catch (refused: RuntimeException) {
        throw IOException(refused)
    }

    /** In Rust (`mobile-ffi/src/bitmap.rs`). */
    @JvmStatic
    private external fun keep(bitmap: Bitmap, hasAlpha: Boolean, isPremultiplied: Boolean): ByteArray

    private fun decode(resolver: ContentResolver, uri: Uri): Bitmap =
        ImageDecoder.decodeBitmap(ImageDecoder.createSource(resolver, uri)) { decoder, info, _ ->
            decoder.allocator = ImageDecoder.ALLOCATOR_SOFTWARE
            val shorter = minOf(info.size.width, info.size.height)
            decoder.setTargetSampleSize(maxOf(1, shorter / SIDE))
        }

    /** Before Android 9, which neither reads HEIC nor turns pictures upright by itself. */
    private fun decodeOld(resolver: ContentResolver, uri: Uri): Bitmap {
        fun <T> stream(use: (java.io.InputStream) -> T): T =
            resolver.openInputStream(uri)?.use(use) ?: throw FileNotFoundException("$uri")

        val bounds = BitmapFactory.Options().apply { inJustDecodeBounds = true }
        stream { BitmapFactory.decodeStream(it, null, bounds) }
        val options = BitmapFactory.Options().apply {
            inSampleSize = maxOf(1, minOf(bounds.outWidth, bounds.outHeight) / SIDE)
        }
        val bitmap = stream { BitmapFactory.decodeStream(it, null, options) }
            ?: throw IOException("$uri is no picture")
        val turn = upright(stream { ExifInterface(it) }) ?: return bitmap
        return Bitmap.createBitmap(bitmap, 0, 0, bitmap.width, bitmap.height, turn, true)
    }

    private fun upright(exif: ExifInterface): Matrix? {
        val turn = Matrix()
        when (exif.getAttributeInt(ExifInterface.TAG_ORIENTATION, ExifInterface.ORIENTATION_NORMAL)) {
            ExifInterface.ORIENTATION_FLIP_HORIZONTAL -> turn.setScale(-1f, 1f)
            ExifInterface.ORIENTATION_ROTATE_180 -> turn.setRotate(180f)
            ExifInterface.ORIENTATION_FLIP_VERTICAL -> turn.setScale(1f, -1f)
            ExifInterface.ORIENTATION_TRANSPOSE -> turn.apply { setRotate(90f); postScale(-1f, 1f) }
            ExifInterface.ORIENTATION_ROTATE_90 -> turn.setRotate(90f)
            ExifInterface.ORIENTATION_TRANSVERSE -> turn.apply { setRotate(-90f); postScale(-1f, 1f) }
            ExifInterface.ORIENTATION_ROTATE_270 -> turn.setRotate(-90f)
            else -> return null
        }
        return turn
    }
}
