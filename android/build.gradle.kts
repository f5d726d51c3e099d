// The library: an AAR for arm64-v8a and x86_64. `build-rust.sh` makes what is native and the Kotlin side of it.
plugins {
    id("com.android.library") version "8.13.0"
    id("org.jetbrains.kotlin.android") version "2.3.21"
    id("com.android.application") version "8.13.0" apply false
    id("maven-publish")
    id("signing")
}

group = "io.seedling"
version = "0.1.0"

android {
    namespace = "io.seedling"
    compileSdk = 36
    ndkVersion = "28.2.13676358"

    defaultConfig {
        minSdk = 26
        consumerProguardFiles("consumer-rules.pro")
        ndk { abiFilters += listOf("arm64-v8a", "x86_64") }
    }

    sourceSets["main"].apply {
        kotlin.srcDirs("src/main/kotlin", "src/android/kotlin", "build/rust/kotlin")
        jniLibs.srcDirs("build/rust/jniLibs")
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }

    publishing {
        singleVariant("release") {
            withSourcesJar()
            withJavadocJar()
        }
    }
}

kotlin { jvmToolchain(17) }

dependencies {
    api("org.jetbrains.kotlinx:kotlinx-coroutines-core:1.10.2")
    runtimeOnly("org.jetbrains.kotlinx:kotlinx-coroutines-android:1.10.2")
    // Its own native part is aligned to 16 KB pages from 5.17 on.
    implementation("net.java.dev.jna:jna:5.17.0@aar")
}

val rust by tasks.registering(Exec::class) {
    description = "Compiles the native library for every ABI, and writes its Kotlin side."
    commandLine("./build-rust.sh")
    inputs.files(fileTree("../core/src"), fileTree("../mobile-ffi/src"), "../Cargo.lock")
    outputs.dir("build/rust")
}

tasks.named("preBuild") { dependsOn(rust) }

publishing {
    publications {
        register<MavenPublication>("release") {
            artifactId = "seedling"
            afterEvaluate { from(components["release"]) }
            pom {
                name = "Seedling"
                description = "Adapts small vision models to the photos on the device that holds them"
                licenses {
                    license { name = "MIT"; url = "https://opensource.org/license/mit" }
                    license { name = "Apache-2.0"; url = "https://www.apache.org/licenses/LICENSE-2.0" }
                }
            }
        }
    }
    repositories {
        // A folder to look at, and to upload as a bundle.
        maven { name = "bundle"; url = uri(layout.buildDirectory.dir("bundle")) }
    }
}

signing {
    val key = providers.environmentVariable("SIGNING_KEY").orNull
    isRequired = key != null
    if (key != null) {
        useInMemoryPgpKeys(key, providers.environmentVariable("SIGNING_PASSWORD").orNull)
        sign(publishing.publications)
    }
}
