"""What a training will take, from configurations alone: parameters, memory, disk; pure arithmetic with its sources cited."""
