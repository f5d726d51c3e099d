#if canImport(BackgroundTasks) && os(iOS)
    import BackgroundTasks
    import Foundation

    /// Trains at night: in `BGProcessingTask`s, which the system grants while the device is charging and
    /// nobody uses it. `identifier` stands in the app's Info.plist, under
    /// `BGTaskSchedulerPermittedIdentifiers`.
    public final class BackgroundTraining: Sendable {
        private let identifier: String
        private let runner: SliceRunner

        public init(identifier: String, runner: SliceRunner) {
            self.identifier = identifier
            self.runner = runner
        }

        /// To be called before the app has finished launching, once.
        public func register() {
            BGTaskScheduler.shared.register(forTaskWithIdentifier: identifier, using: nil) { task in
                let slice = GrantedSlice(task)
                Task {
                    if await self.runner.run(slice) { try? self.schedule() }
                }
            }
        }

        /// Asks the system for a slice, not before `earliest`. To be called when the app goes to the
        /// background, and after each slice that did not finish; asking again replaces the request.
        public func schedule(earliest: Date? = nil) throws {
            let request = BGProcessingTaskRequest(identifier: identifier)
            request.requiresExternalPower = true
            request.requiresNetworkConnectivity = false
            request.earliestBeginDate = earliest
            try BGTaskScheduler.shared.submit(request)
        }

        /// Takes the request back.
        public func cancel() {
            BGTaskScheduler.shared.cancel(taskRequestWithIdentifier: identifier)
        }
    }

    /// The system's task may be told from any thread; its type does not say so.
    private final class GrantedSlice: Slice, @unchecked Sendable {
        private let task: BGTask

        init(_ task: BGTask) { self.task = task }

        func whenExpired(_ handler: @escaping @Sendable () -> Void) { task.expirationHandler = handler }

        func complete(success: Bool) { task.setTaskCompleted(success: success) }
    }
#endif
