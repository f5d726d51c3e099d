
import Seedling
import SwiftUI

@main
struct MyApp: App {
    static let nights = BackgroundTraining(
        identifier: "org.example.training", runner: learning.runner(sensors: DeviceSensors()))

    init() { Self.nights.register() }

    var body: some Scene {
        WindowGroup { ContentView() }
            .backgroundTask(.appRefresh("org.example.refresh")) { try? Self.nights.schedule() }
    }
}
