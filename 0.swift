
import Foundation
import Seedling

/// What the app learns from: weights vouched for, and photos by their names.
struct Learning: Sendable {
    let home: URL
    let base: URL
    let keys: [String]
    /// The names of photos there are now.
    let names: @Sendable () async throws -> [String]
    /// Hands one over; whether it could.
    let add: @Sendable (Photos, String) async throws -> Bool

    /// The session, as often as it is needed: the same photos in the same order, until `forget`.
    func open() async throws -> Session {
        let photos = try await Album(storage: home).photos(current: names, add: add)
        let weights = try Weights.open(base, keys: keys, storage: home)
        return try Session(folder: home.appendingPathComponent("session"), weights: weights, photos: photos)
    }

    /// Trains with the app in front; returns what to tell the person, or nil where it was paused.
    func now(show: @Sendable (String) -> Void) async throws -> String? {
        let session = try await open()
        for try await progress in session.progress() {
            show("\(progress.stage): \(progress.done) of \(progress.total)")
        }
        let verdict = try session.verdict()
        if verdict != nil { try session.export(to: home.appendingPathComponent("adapted.safetensors")) }
        try await session.close()
        return verdict?.sentence
    }

    /// Begins anew, with the photos there are by then.
    func forget() async throws {
        let session = try await open()
        try session.discard()
        try await session.close()
        try Album(storage: home).forget()
    }

    /// For the night: see below.
    func runner(sensors: (any Sensors)?) -> SliceRunner {
        SliceRunner(storage: home, sensors: sensors) { try await open() }
    }
}
