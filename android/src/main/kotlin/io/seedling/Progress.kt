package io.seedling

/** How far work is: its stage, steps taken or photos processed, and out of how many. */
typealias Progress = io.seedling.bridge.Progress

/** What a session is doing. */
typealias Stage = io.seedling.bridge.Stage
