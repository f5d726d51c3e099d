// swift-tools-version: 6.0
// Seedling for Swift. The native library is an XCFramework on Apple's systems (build-xcframework.sh)
// and the host's shared library elsewhere, where the package is built to be tested (test.sh).
import PackageDescription

#if os(Linux)
let native = Target.systemLibrary(name: "SeedlingFFI", path: "build/native")
#else
let native = Target.binaryTarget(name: "SeedlingFFI", path: "build/Seedling.xcframework")
#endif

let package = Package(
    name: "Seedling",
    platforms: [.iOS(.v16), .macOS(.v13)],
    products: [.library(name: "Seedling", targets: ["Seedling"])],
    targets: [
        native,
        // Written by uniffi-bindgen from the library itself, see mobile-ffi/bindings.
        .target(name: "SeedlingBridge", dependencies: ["SeedlingFFI"], path: "build/bridge"),
        .target(name: "Seedling", dependencies: ["SeedlingBridge"]),
        .executableTarget(name: "SeedlingChild", dependencies: ["Seedling"]),
        .testTarget(name: "SeedlingTests", dependencies: ["Seedling", "SeedlingChild"]),
    ],
    swiftLanguageModes: [.v6]
)
