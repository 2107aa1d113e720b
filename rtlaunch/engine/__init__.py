"""DO: the story of a launch, from survey to outcome; imports core and linux."""
