package io.seedling

import android.Manifest
import android.content.ContentResolver
import android.content.ContentUris
import android.content.Context
import android.content.Intent
import android.content.pm.PackageManager
import android.net.Uri
import android.os.Build
import android.provider.MediaStore
import java.io.IOException

/**
 * The photos of the device, as far as the person lets the app see them. The names of photos are their
 * `content:` addresses. This library asks for no permission itself: an app that wants more than what the
 * photo picker hands over names `READ_MEDIA_IMAGES` and `READ_MEDIA_VISUAL_USER_SELECTED` (up to Android 12
 * `READ_EXTERNAL_STORAGE`) in its own manifest.
 */
class PhotoLibrary internal constructor(
    private val context: Context,
    private val reduced: (ContentResolver, Uri) -> ByteArray,
) {
    constructor(context: Context) : this(context, Bitmaps::reduced)

    /** What the app may see. */
    enum class Access {
        /** All photos. */
        ALL,

        /** Those that the person has chosen (Android 14 and later). */
        CHOSEN,

        /** None but those that the photo picker handed over. */
        NONE,
    }

    /** What the app may see now. To be asked anew in every slice: it can be taken back at any time. */
    val access: Access
        get() = when {
            Build.VERSION.SDK_INT < Build.VERSION_CODES.TIRAMISU ->
                if (isGranted(Manifest.permission.READ_EXTERNAL_STORAGE)) Access.ALL else Access.NONE
            isGranted(Manifest.permission.READ_MEDIA_IMAGES) -> Access.ALL
            Build.VERSION.SDK_INT >= Build.VERSION_CODES.UPSIDE_DOWN_CAKE &&
                isGranted(Manifest.permission.READ_MEDIA_VISUAL_USER_SELECTED) -> Access.CHOSEN
            else -> Access.NONE
        }

    /** The newest [most] photos in the MediaStore that the app may see; none where it may see none. */
    @JvmOverloads
    fun names(most: Int = 500): List<String> {
        if (access == Access.NONE) return emptyList()
        val columns = arrayOf(MediaStore.Images.Media._ID)
        val newest = "${MediaStore.Images.Media.DATE_ADDED} DESC, ${MediaStore.Images.Media._ID} DESC"
        val names = mutableListOf<String>()
        try {
            context.contentResolver.query(IMAGES, columns, null, null, newest)?.use { rows ->
                while (names.size < most && rows.moveToNext()) {
                    names += ContentUris.withAppendedId(IMAGES, rows.getLong(0)).toString()
                }
            }
        } catch (_: SecurityException) {
            // Taken back between the question and the answer.
            return emptyList()
        }
        return names
    }

    /** Keeps the grants of photos that the photo picker has handed over beyond this process, and names them. */
    fun keep(picked: List<Uri>): List<String> = picked.map { uri ->
        try {
            context.contentResolver.takePersistableUriPermission(uri, Intent.FLAG_GRANT_READ_URI_PERMISSION)
        } catch (_: SecurityException) {
            // Granted for this process only: usable until it ends.
        }
        uri.toString()
    }

    /**
     * Hands over the photo of that name, decoded by the system (HEIC too) and reduced. Returns whether it
     * could: not where it was deleted or may no longer be seen, nor where it is no picture.
     */
    fun add(photos: Photos, name: String): Boolean = try {
        photos.add(name, reduced(context.contentResolver, Uri.parse(name)))
        true
    } catch (_: IOException) {
        false
    } catch (_: SecurityException) {
        false
    }

    private fun isGranted(permission: String) =
        context.checkSelfPermission(permission) == PackageManager.PERMISSION_GRANTED

    private companion object {
        /** All pictures on the device and its cards. */
        val IMAGES: Uri = Uri.parse("content://${MediaStore.AUTHORITY}/${MediaStore.VOLUME_EXTERNAL}/images/media")
    }
}
