"""Who is served next: one pure policy per file, used by gateway, engine and simulator alike."""
