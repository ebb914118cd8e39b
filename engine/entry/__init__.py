"""The one name that the wheel gives to the world: installed as `adapterbuild`, which there holds `engine` and `stages`."""
