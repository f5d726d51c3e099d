package io.seedling

import android.app.job.JobInfo
import android.app.job.JobParameters
import android.content.BroadcastReceiver
import android.content.ContentInterface
import android.content.ContentResolver
import android.content.Context
import android.content.ContextWrapper
import android.content.IContentProvider
import android.content.Intent
import android.content.IntentFilter
import android.content.pm.ApplicationInfo
import android.content.pm.PackageManager
import android.database.MatrixCursor
import android.net.Uri
import android.os.BatteryManager
import java.io.File
import java.io.FileNotFoundException
import java.lang.reflect.Proxy
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withTimeout

/** What Android gives an app, as far as the library asks: files, grants, photos, the battery. */
class Phone(private val home: File) : ContextWrapper(null) {
    /** Photos in the MediaStore, by their numbers. */
    val photos = TestPhotos.files.withIndex().associate { (index, file) -> 100L + index to file }.toMutableMap()
    val granted = mutableSetOf(android.Manifest.permission.READ_MEDIA_IMAGES)
    var battery: Intent? = null

    /** Addresses of photos to their bytes, as the library's own decoder would have them. */
    val library = PhotoLibrary(this) { _, uri -> bytes(uri) }

    fun bytes(uri: Uri): ByteArray {
        if (library.access == PhotoLibrary.Access.NONE) throw SecurityException("$uri is not granted")
        val file = photos[uri.lastPathSegment!!.toLong()] ?: throw FileNotFoundException("$uri")
        return file.readBytes()
    }

    override fun getApplicationContext(): Context = this

    override fun getFilesDir(): File = home

    override fun getPackageName() = "io.seedling.test"

    override fun getOpPackageName() = packageName

    override fun getApplicationInfo() = ApplicationInfo().apply { targetSdkVersion = 35 }

    override fun getSystemService(name: String): Any? = null

    override fun checkSelfPermission(permission: String) =
        if (permission in granted) PackageManager.PERMISSION_GRANTED else PackageManager.PERMISSION_DENIED

    override fun registerReceiver(receiver: BroadcastReceiver?, filter: IntentFilter): Intent? = battery

    override fun getContentResolver(): ContentResolver {
        val store = Proxy.newProxyInstance(javaClass.classLoader, arrayOf(ContentInterface::class.java)) { _, method, arguments ->
            check(method.name == "query") { "nobody asks for ${method.name}" }
            val columns = @Suppress("UNCHECKED_CAST") (arguments[1] as Array<String>)
            MatrixCursor(columns).apply { photos.keys.sortedDescending().forEach { addRow(arrayOf(it)) } }
        }
        return object : ContentResolver(this, store as ContentInterface) {
            override fun acquireProvider(context: Context?, name: String?): IContentProvider? = null

            override fun releaseProvider(provider: IContentProvider?) = false

            override fun acquireUnstableProvider(context: Context?, name: String?): IContentProvider? = null

            override fun releaseUnstableProvider(provider: IContentProvider?) = false

            override fun unstableProviderDied(provider: IContentProvider?) {}
        }
    }

    companion object {
        fun battery(level: Int, plugged: Int): Intent = Intent(Intent.ACTION_BATTERY_CHANGED)
            .putExtra(BatteryManager.EXTRA_LEVEL, level)
            .putExtra(BatteryManager.EXTRA_SCALE, 200)
            .putExtra(BatteryManager.EXTRA_PLUGGED, plugged)
    }
}

/** An app's service, which trains on what the phone's library has. */
class NightService(
    private val phone: Phone,
    override val sensors: Sensors? = null,
    override val leastFree: Long = 0,
    private val most: Int = 500,
) : TrainingService() {
    /** Whether the slice that has ended asked for another. */
    var again = CompletableDeferred<Boolean>()
    val parameters = JobParameters(null, null, 7, null, null, null, 0, false, false, false, null, null, null)

    init {
        attachBaseContext(phone)
    }

    override val rules: Rules get() = usualRules().apply { chargingOnly = false }

    override suspend fun open(): Session {
        val photos = Album(storage).photos({ phone.library.names(most) }, phone.library::add)
        return Session.open(File(storage, "session"), Weights.openOwn(SessionTest.shipped), photos, SessionTest.longer)
    }

    override fun finish(parameters: JobParameters, again: Boolean) {
        this.again.complete(again)
    }

    /** A whole slice, as the system would grant it. */
    fun slice(): Boolean = runBlocking {
        check(onStartJob(parameters))
        withTimeout(120_000) { again.await() }.also { onDestroy() }
    }

    fun entries() = SliceLog(storage).entries()

    /** How the slice has ended that the system has stopped. */
    fun stopped(): SliceEntry {
        repeat(500) {
            entries().lastOrNull()?.let { return it }
            Thread.sleep(20)
        }
        error("nothing was logged")
    }

    fun weights(): ByteArray = File(storage, "session/weights.safetensors").readBytes()

    companion object {
        fun request(): JobInfo = request(android.content.ComponentName("io.seedling.test", "NightService"), 7)
    }
}

/** A process whose service trains in the folder it is given, to be killed. */
fun main(arguments: Array<String>) {
    NightService(Phone(File(arguments[0]))).slice()
}
