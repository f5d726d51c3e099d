// A process that trains until it is killed, for the tests: SeedlingChild FOLDER WEIGHTS PHOTO...
import Foundation
import Seedling

let arguments = CommandLine.arguments.dropFirst().map { URL(fileURLWithPath: $0) }
let photos = Photos()
for file in arguments.dropFirst(2) {
    try photos.add(file, name: file.lastPathComponent)
}
let session = try Session(
    folder: arguments[0], weights: .openOwn(arguments[1]), photos: photos,
    settings: Settings(memoryMb: 300, epochs: 20, imageSize: 64, threads: 2, seed: 5))
let outcome = try await session.train()
print(outcome)
