"""A run of fine-tuning that several processes, or several devices of TensorFlow, do together; see `test_distributed`.

python distributed_run.py FRAMEWORK START TRAIN DEV OUTPUT CHANGES
"""

from __future__ import annotations

import json
import sys

if __name__ == "__main__":
    framework, start, train, dev, output, changes = sys.argv[1:]
    settings = json.loads(changes)
    if settings.get("devices"):
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        parts = [tf.config.LogicalDeviceConfiguration()] * len(settings["devices"])
        tf.config.set_logical_device_configuration(cpu, parts)
    from rembert.tasks import finetune

    task = settings.pop("task", "token-classification")
    scores = finetune(
        task,
        start,
        train,
        evaluation=dev,
        output=output,
        framework=framework,
        from_scratch=True,
        precision="float64",
        batch_size=8,
        log_steps=1,
        learning_rate=1e-2,
        **{"epochs": 2, **settings},
    )
    print(json.dumps(scores), flush=True)
