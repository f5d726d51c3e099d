package io.seedling.sample

import android.graphics.BitmapFactory
import android.net.Uri
import android.view.View
import android.widget.ImageView
import android.widget.LinearLayout
import io.seedling.Search
import java.io.IOException

/** A photo, and what is like it with the weights before and after. */
private class Likeness(val example: String, val before: List<String>, val after: List<String>)

private var likenesses: List<Likeness> = emptyList()

/** 3. What the model finds alike, before and after. */
fun neighborsScreen(activity: MainActivity): View = with(activity) {
    val all = column(button("Compare") { perform { compare(this) } })
    for (likeness in likenesses) {
        all.addView(text("Like this"))
        all.addView(thumbnails(this, listOf(likeness.example)))
        all.addView(text("Before"))
        all.addView(thumbnails(this, likeness.before))
        all.addView(text("After"))
        all.addView(thumbnails(this, likeness.after))
    }
    all
}

private suspend fun compare(activity: MainActivity): String = with(activity) {
    val photos = store.photos()
    Search.over(photos, store.base()).use { before ->
        Search.over(photos, store.result()).use { after ->
            likenesses = before.embeddings().keys.sorted().take(EXAMPLES).map { name ->
                Likeness(name, before.like(name, NEAR).map { it.name }, after.like(name, NEAR).map { it.name })
            }
        }
    }
    "${likenesses.size} photos and those most like them"
}

private fun thumbnails(activity: MainActivity, names: List<String>): LinearLayout {
    val row = activity.row()
    for (name in names) {
        val view = ImageView(activity)
        try {
            val options = BitmapFactory.Options().apply { inSampleSize = 8 }
            activity.contentResolver.openInputStream(Uri.parse(name))?.use {
                view.setImageBitmap(BitmapFactory.decodeStream(it, null, options))
            }
        } catch (_: IOException) {
            // Gone since: an empty place.
        } catch (_: SecurityException) {
            // No longer granted.
        }
        view.scaleType = ImageView.ScaleType.CENTER_CROP
        row.addView(view, SIDE, SIDE)
    }
    return row
}

private const val EXAMPLES = 6
private const val NEAR = 5
private const val SIDE = 180
