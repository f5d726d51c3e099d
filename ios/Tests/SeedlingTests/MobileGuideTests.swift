import Foundation
import Seedling
import XCTest

/// The function that docs/mobile.md shows, put into Generated/ by test.sh.
final class MobileGuideTests: XCTestCase {
    func testItsFunctionAdapts() async throws {
        let environment = ProcessInfo.processInfo.environment
        let seedling = try XCTUnwrap(environment["SEEDLING"], "SEEDLING names the program")
        let home = FileManager.default.temporaryDirectory.appendingPathComponent("seedling-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: home, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: home) }
        let base = home.appendingPathComponent("base.safetensors")
        try FileManager.default.copyItem(at: SessionTests.shipped, to: base)
        let key = home.appendingPathComponent("release.key")
        try call(seedling, "keygen", key.path)
        try call(seedling, "sign", base.path, "--key", key.path, "--version", "3")
        let keys = [try String(contentsOfFile: key.path + ".pub", encoding: .utf8).trimmingCharacters(in: .whitespacesAndNewlines)]
        let adapted = try await adapt(TestPhotos.files, base: base, keys: keys, home: home)
        let weights = try Weights.openOwn(XCTUnwrap(adapted))
        XCTAssertEqual(weights.arch, "mobilenet_v3_small")
        let signed = try Weights.open(base, keys: keys, storage: home)
        XCTAssertEqual(signed.version, 3)
    }

    private func call(_ words: String...) throws {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: words[0])
        process.arguments = Array(words.dropFirst())
        try process.run()
        process.waitUntilExit()
        XCTAssertEqual(process.terminationStatus, 0)
    }
}
