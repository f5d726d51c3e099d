package io.seedling.sample

import android.app.Activity
import android.content.Intent
import android.net.Uri
import android.os.Build
import android.os.Bundle
import android.provider.MediaStore
import android.view.View
import android.widget.Button
import android.widget.HorizontalScrollView
import android.widget.LinearLayout
import android.widget.ScrollView
import android.widget.TextView
import io.seedling.bridge.SeedlingException
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.Job
import kotlinx.coroutines.MainScope
import kotlinx.coroutines.cancel
import kotlinx.coroutines.launch
import kotlinx.coroutines.withContext

/** Five screens, one below a row of buttons; each has a file of its own. */
class MainActivity : Activity() {
    val store by lazy { Store(this) }
    private val scope: CoroutineScope = MainScope()
    private var work: Job? = null
    private lateinit var page: LinearLayout
    private lateinit var status: TextView
    private var shown: (MainActivity) -> View = ::pickScreen

    val isBusy: Boolean get() = work?.isActive == true

    override fun onCreate(saved: Bundle?) {
        super.onCreate(saved)
        val tabs = row(
            button("Photos") { show(::pickScreen) },
            button("Adapt") { show(::adaptScreen) },
            button("Neighbors") { show(::neighborsScreen) },
            button("Keep") { show(::keepScreen) },
            button("Stored") { show(::storedScreen) },
        )
        page = column()
        status = text("")
        val all = column(HorizontalScrollView(this).apply { addView(tabs) }, page, status)
        all.fitsSystemWindows = true
        setContentView(ScrollView(this).apply { addView(all) })
        show(shown)
    }

    override fun onStop() {
        super.onStop()
        // What is not finished here continues at night.
        if (!isChangingConfigurations) {
            work?.cancel()
            NightTraining.schedule(this)
        }
    }

    override fun onDestroy() {
        scope.cancel()
        super.onDestroy()
    }

    fun show(screen: (MainActivity) -> View) {
        shown = screen
        page.removeAllViews()
        page.addView(screen(this))
    }

    fun say(message: String) {
        status.text = message
    }

    /** Does something that takes a while, one thing at a time, and shows the screen again with what came of it. */
    fun perform(action: suspend () -> String) {
        if (isBusy) return
        say("…")
        work = scope.launch {
            val message = try {
                withContext(Dispatchers.Default) { action() }
            } catch (_: CancellationException) {
                "Paused: it continues from here."
            } catch (failed: SeedlingException) {
                failed.message.orEmpty()
            }
            say(message)
            show(shown)
        }
        show(shown)
    }

    fun pause() {
        work?.cancel()
    }

    /** Calls [update] on the screen's thread. */
    fun onScreen(update: () -> Unit) = runOnUiThread(update)

    /** The system's photo picker, which asks for no permission. */
    fun pickPhotos() {
        val intent = if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.TIRAMISU) {
            Intent(MediaStore.ACTION_PICK_IMAGES)
                .putExtra(MediaStore.EXTRA_PICK_IMAGES_MAX, MediaStore.getPickImagesMaxLimit())
        } else {
            Intent(Intent.ACTION_OPEN_DOCUMENT).setType("image/*").putExtra(Intent.EXTRA_ALLOW_MULTIPLE, true)
                .addCategory(Intent.CATEGORY_OPENABLE)
        }
        @Suppress("DEPRECATION")
        startActivityForResult(intent, PICK)
    }

    @Deprecated("Android's own way without AndroidX")
    override fun onActivityResult(request: Int, result: Int, data: Intent?) {
        if (request != PICK || result != RESULT_OK || data == null) return
        val several = data.clipData
        val uris: List<Uri> = when {
            several != null -> List(several.itemCount) { several.getItemAt(it).uri }
            else -> listOfNotNull(data.data)
        }
        store.pick(store.library.keep(uris))
        show(::pickScreen)
    }

    /** For whoever wants more than what was picked. */
    fun askForPhotos() {
        val permissions = when {
            Build.VERSION.SDK_INT >= Build.VERSION_CODES.UPSIDE_DOWN_CAKE -> arrayOf(
                android.Manifest.permission.READ_MEDIA_IMAGES,
                android.Manifest.permission.READ_MEDIA_VISUAL_USER_SELECTED,
            )
            Build.VERSION.SDK_INT >= Build.VERSION_CODES.TIRAMISU -> arrayOf(android.Manifest.permission.READ_MEDIA_IMAGES)
            else -> arrayOf(android.Manifest.permission.READ_EXTERNAL_STORAGE)
        }
        requestPermissions(permissions, PICK)
    }

    override fun onRequestPermissionsResult(request: Int, permissions: Array<out String>, results: IntArray) {
        show(::pickScreen)
    }

    fun text(words: String) = TextView(this).apply {
        text = words
        setPadding(24, 16, 24, 16)
    }

    fun button(words: String, press: () -> Unit) = Button(this).apply {
        text = words
        setOnClickListener { press() }
    }

    fun column(vararg views: View) = LinearLayout(this).apply {
        orientation = LinearLayout.VERTICAL
        views.forEach(::addView)
    }

    fun row(vararg views: View) = LinearLayout(this).apply { views.forEach(::addView) }

    private companion object {
        const val PICK = 1
    }
}
