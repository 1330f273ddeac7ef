"""What launch.inspect shows: views by name, and the page of one."""
