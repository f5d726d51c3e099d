package io.seedling;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.seedling.bridge.Outcome;
import io.seedling.bridge.SeedlingException;
import io.seedling.bridge.Settings;
import java.io.File;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** The way of an app in Java. */
class JavaTest {
    private static final File SHIPPED = new File("../models/mobilenet_v3_small.safetensors");

    @Test
    @Timeout(value = 300, unit = TimeUnit.SECONDS)
    void javaTrainsSearchesAndEvaluates(@TempDir Path folder) throws Exception {
        Photos photos = new Photos();
        for (File file : TestPhotos.INSTANCE.getFiles()) {
            photos.add(file, file.getName());
        }
        Settings settings = new Settings(300, 2, 32, 2, 1L, true, false);
        File out = folder.resolve("out.safetensors").toFile();
        try (Weights weights = Weights.openOwn(SHIPPED);
                Session session = Session.open(folder.resolve("run").toFile(), weights, photos, settings)) {
            assertEquals(Outcome.Done.INSTANCE, session.trainBlocking());
            assertNotNull(session.resources());
            session.export(out);
        }
        try (Weights weights = Weights.openOwn(out); Search search = Search.overBlocking(photos, weights)) {
            String name = TestPhotos.INSTANCE.getFiles().get(0).getName();
            assertEquals(3, search.like(name, 3).size());
            assertEquals(40, Evaluate.evaluateBlocking(photos, weights).getPhotos());
        }
        assertThrows(SeedlingException.Weights.class, () -> Weights.openOwn(new File("pom.xml")));
    }
}
