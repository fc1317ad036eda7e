# The command line on one rank.
add_test(NAME launch/cli COMMAND ${CMAKE_SOURCE_DIR}/tests/launch/cli.sh $<TARGET_FILE:trireme> ${CMAKE_SOURCE_DIR})
set_tests_properties(launch/cli PROPERTIES LABELS unit TIMEOUT 120)
