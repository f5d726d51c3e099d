// The sample app: five screens over the library, with Android's own widgets only.
plugins {
    id("com.android.application")
    id("org.jetbrains.kotlin.android")
}

android {
    namespace = "io.seedling.sample"
    compileSdk = 36

    defaultConfig {
        applicationId = "io.seedling.sample"
        minSdk = 26
        targetSdk = 36
        versionCode = 1
        versionName = "0.1.0"
    }

    buildTypes {
        release {
            isMinifyEnabled = true
            proguardFiles(getDefaultProguardFile("proguard-android-optimize.txt"))
        }
    }

    sourceSets["main"].assets.srcDir("build/weights")
    // Read by the file: not to be packed again.
    androidResources { noCompress += "safetensors" }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
}

kotlin { jvmToolchain(17) }

dependencies {
    implementation(project(":"))
}

val weights by tasks.registering(Exec::class) {
    description = "Signs the weights that the sample is shipped with."
    commandLine("../../models/for-samples", "build/weights")
    inputs.file("../../models/mobilenet_v3_small.safetensors")
    outputs.dir("build/weights")
}

tasks.named("preBuild") { dependsOn(weights) }
